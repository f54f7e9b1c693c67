import { describe, expect, test } from 'vitest'

import { collect, event, stores } from '../stores.mjs'

describe.each(stores)('close of the $name store', ({ create }) => {
  test('finishes what was asked before', async () => {
    const store = create()
    const appends = Array.from({ length: 50 }, (_, i) => store.append([event('n', i)]))
    const query = store.query()
    const head = store.headSequenceNumber()
    const closed = store.close()
    const results = await Promise.all(appends)
    expect(results.map((result) => Number(result.last_sequence_number))).toEqual(
      Array.from({ length: 50 }, (_, i) => i + 1)
    )
    await query
    await head
    await closed
  })

  test('lets a query take all its pages', async () => {
    const store = create()
    const batch = Array.from({ length: 3000 }, (_, n) => event('n', { n, text: 'x'.repeat(300) }))
    await store.append(batch)
    const queries = [store.query(), store.query({}, { limit: 2500 })]
    const closed = store.close()
    await expect(store.query()).rejects.toMatchObject({ code: 'StoreClosed' })
    const [all, some] = await Promise.all(queries)
    expect(all.event_records).toHaveLength(3000)
    expect(some.event_records).toHaveLength(2500)
    await closed
  })

  test('is final and idempotent', async () => {
    const store = create()
    await store.append([event('a', 1)])
    expect(await store.close()).toBeUndefined()
    await Promise.all([store.close(), store.close(), store[Symbol.asyncDispose]()])
    const closed = { name: 'FactstrError', code: 'StoreClosed' }
    await expect(store.append([event('a', 1)])).rejects.toMatchObject(closed)
    await expect(store.appendIf([event('a', 1)], {}, 1n)).rejects.toMatchObject(closed)
    await expect(store.query()).rejects.toMatchObject(closed)
    await expect(store.headSequenceNumber()).rejects.toMatchObject(closed)
    await expect(collect(store.read())).rejects.toMatchObject(closed)
  })

  test('ends a read that goes on', async () => {
    const store = create()
    await store.append([1, 2, 3, 4].map((n) => event('n', n)))
    const iterator = store.read({}, { pageSize: 2 })[Symbol.asyncIterator]()
    expect((await iterator.next()).value.payload).toBe(1)
    await store.close()
    await expect(iterator.next()).rejects.toMatchObject({ code: 'StoreClosed' })
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
  })

  test('of a store that was never used does nothing', async () => {
    const store = create()
    await store.close()
    await expect(store.query()).rejects.toMatchObject({ code: 'StoreClosed' })
  })
})
