import { describe, expect, test } from 'vitest'

import { event, having, stores } from '../stores.mjs'

const camera = having({ item: 'camera' })
const reserved = [event('reserved', { item: 'camera' })]
const unrelated = [event('reserved', { item: 'tripod' })]

const conflict = (expected, actual) => ({
  append_result: null,
  conflict: { expected_context_version: expected, actual_context_version: actual }
})
const success = (first, last = first) => ({
  append_result: {
    first_sequence_number: first,
    last_sequence_number: last,
    committed_count: last - first + 1n
  },
  conflict: null
})

describe.each(stores)('appendIf in the $name store', ({ create }) => {
  test('null and absent expect an empty context', async () => {
    const store = create()
    await store.append(unrelated)
    expect(await store.appendIf(reserved, camera)).toEqual(success(2n))
    expect(await store.appendIf(reserved, camera)).toEqual(conflict(null, 2n))
    expect(await store.appendIf(reserved, camera, null)).toEqual(conflict(null, 2n))
    const tripod = having({ item: 'tripod' })
    expect(await store.appendIf(unrelated, tripod, undefined)).toEqual(conflict(null, 1n))
    expect(await store.appendIf(reserved, {}, null)).toEqual(conflict(null, 2n))
    const nothing = { filters: [{ event_types: [] }] }
    expect(await store.appendIf([...reserved, ...reserved], nothing, null)).toEqual(success(3n, 4n))
  })

  test('only the newest match will do', async () => {
    const store = create()
    await store.append([...reserved, ...unrelated, ...reserved, ...unrelated])
    for (const wrong of [0n, 1n, 2n, 4n, 5n, 2n ** 53n, 2n ** 64n, 2n ** 100n]) {
      expect(await store.appendIf(reserved, camera, wrong)).toEqual(conflict(wrong, 3n))
    }
    expect(await store.appendIf(reserved, camera, 1)).toEqual(conflict(1n, 3n))
    expect(await store.appendIf(reserved, camera, null)).toEqual(conflict(null, 3n))
    expect(await store.headSequenceNumber()).toBe(4n)
    expect(await store.appendIf(reserved, camera, 3)).toEqual(success(5n))
    expect(await store.appendIf(reserved, camera, 5n)).toEqual(success(6n))
  })

  test('0n is a version that no context has', async () => {
    const store = create()
    expect(await store.appendIf(reserved, camera, 0n)).toEqual(conflict(0n, null))
    expect(await store.headSequenceNumber()).toBe(null)
  })

  test('the cursor of the query does not matter', async () => {
    const store = create()
    await store.append([...reserved, ...unrelated])
    const later = { ...camera, min_sequence_number: 2n }
    expect(await store.appendIf(reserved, later, null)).toEqual(conflict(null, 1n))
    expect(await store.appendIf(reserved, later, 1n)).toEqual(success(3n))
  })

  test('a query whose version is remembered still sees what came since', async () => {
    const store = create()
    await store.append(reserved)
    const { current_context_version: version } = await store.query(camera)
    await store.append(unrelated)
    expect(await store.appendIf(unrelated, camera, version)).toEqual(success(3n))
    await store.append(reserved)
    expect(await store.appendIf(unrelated, camera, version)).toEqual(conflict(1n, 4n))
  })

  test('conditions of one tick see one another in order', async () => {
    const store = create()
    const answers = await Promise.all([
      store.appendIf(reserved, camera, null),
      store.appendIf(reserved, camera, null),
      store.append(unrelated),
      store.appendIf(reserved, camera, 1n),
      store.appendIf(unrelated, camera, 3n),
      store.appendIf(reserved, camera, 1n)
    ])
    expect(answers[0]).toEqual(success(1n))
    expect(answers[1]).toEqual(conflict(null, 1n))
    expect(answers[2].first_sequence_number).toBe(2n)
    expect(answers[3]).toEqual(success(3n))
    expect(answers[4]).toEqual(success(4n))
    expect(answers[5]).toEqual(conflict(1n, 3n))
  })
})
