import { describe, expect, test } from 'vitest'

import { openAt, storeAt } from '../processes/place.mjs'
import { closing, collect, event, lasting, numbersOf } from '../stores.mjs'

const one = [event('a', { x: 1 })]

describe.each(lasting)('what is in the $name store', ({ create, place }) => {
  test('outlives it', async () => {
    const shared = place()
    const before = await openAt(shared)
    await before.append([...one, ...one, ...one])
    await before.close()
    const store = closing(storeAt(shared))
    expect(numbersOf(await collect(store.read()))).toEqual([1, 2, 3])
    expect((await store.append(one)).first_sequence_number).toBe(4n)
  })

  test('stays when another handle closes', async () => {
    const shared = place()
    const first = closing(await openAt(shared))
    const second = await openAt(shared)
    await first.append(one)
    await second.append(one)
    await second.close()
    await first.append(one)
    expect(numbersOf(await collect(first.read()))).toEqual([1, 2, 3])
  })

  test('is in no other store', async () => {
    const [store, other] = [create(), create()]
    await store.append(one)
    expect(await other.headSequenceNumber()).toBe(null)
    expect((await other.append(one)).first_sequence_number).toBe(1n)
    expect(await store.headSequenceNumber()).toBe(1n)
  })

  test('is in order even where large appends wait for one another', async () => {
    const store = create()
    const large = 'x'.repeat(12 * 1024 * 1024)
    const appends = []
    for (let n = 0; n < 24; n++) appends.push(store.append([event('n', n % 3 === 0 ? large : n)]))
    const results = await Promise.all(appends)
    expect(results.map(({ last_sequence_number: last }) => Number(last))).toEqual(
      Array.from({ length: 24 }, (_, n) => n + 1)
    )
  })
})
