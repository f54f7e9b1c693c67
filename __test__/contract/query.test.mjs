import { describe, expect, test } from 'vitest'

import { collect, event, having, numbersOf, stores } from '../stores.mjs'

const LARGE = 1_200

async function filled(create, count = 9) {
  const store = create()
  const events = Array.from({ length: count }, (_, i) => event('n', { n: i + 1, odd: i % 2 === 0 }))
  await store.append(events)
  return store
}

describe.each(stores)('query and read in the $name store', ({ create }) => {
  test('an empty store has no versions', async () => {
    const store = create()
    expect(await store.query()).toEqual({
      event_records: [],
      last_returned_sequence_number: null,
      current_context_version: null
    })
    expect(await store.headSequenceNumber()).toBe(null)
    expect(await collect(store.read())).toEqual([])
  })

  test('the cursor limits the rows only', async () => {
    const store = await filled(create)
    for (const cursor of [3n, 3]) {
      const found = await store.query({ ...having({ odd: true }), min_sequence_number: cursor })
      expect(numbersOf(found.event_records)).toEqual([5, 7, 9])
      expect(found.last_returned_sequence_number).toBe(9n)
      expect(found.current_context_version).toBe(9n)
    }
    for (const beyond of [9n, 10n, 2n ** 63n, 2n ** 80n, Number.MAX_SAFE_INTEGER]) {
      const found = await store.query({ ...having({ odd: true }), min_sequence_number: beyond })
      expect(found.event_records).toEqual([])
      expect(found.last_returned_sequence_number).toBe(null)
      expect(found.current_context_version).toBe(9n)
    }
    const everything = await store.query({ min_sequence_number: 0n })
    expect(everything.event_records).toHaveLength(9)
  })

  test.each([1, 15, 16, 17, 63, 64, 65, 130])(
    'a context of %i events comes whole, some of them large',
    async (size) => {
      const store = create()
      const text = 'x'.repeat(70_000)
      const kinds = ['own', 'other', 'strange']
      const expected = { context: [], ofType: [], even: [] }
      let number = 0
      for (let n = 1; n <= size; n++) {
        const large = n % 30 === 10 ? { text } : {}
        // Each kind has its group of appends in turn, and some have no event of the context.
        const batch = kinds.slice(n % 3).map((kind) => event(kind, { of: kind, n }))
        batch.push(
          event(n % 4 === 0 ? 'rare' : 'often', { context: 7, even: n % 2 === 0, ...large })
        )
        await store.append(batch)
        number += batch.length
        expected.context.push(number)
        if (n % 4 === 0) expected.ofType.push(number)
        if (n % 2 === 0) expected.even.push(number)
      }
      const questions = {
        context: having({ context: 7 }),
        ofType: having({ context: 7 }, 'rare'),
        even: having({ context: 7, even: true })
      }
      for (const [name, query] of Object.entries(questions)) {
        const all = expected[name]
        const found = await store.query(query)
        expect(numbersOf(found.event_records)).toEqual(all)
        const version = all.length > 0 ? BigInt(all.at(-1)) : null
        expect(found.current_context_version).toBe(version)
        expect(found.last_returned_sequence_number).toBe(version)
        const large = found.event_records.filter(({ payload }) => 'text' in payload)
        expect(large.every(({ payload }) => payload.text === text)).toBe(true)
        expect(numbersOf(await collect(store.read(query)))).toEqual(all)
        const cursor = all[all.length >> 1] ?? 0
        const later = await store.query({ ...query, min_sequence_number: cursor })
        expect(numbersOf(later.event_records)).toEqual(all.filter((each) => each > cursor))
        expect(later.current_context_version).toBe(version)
        const calls = []
        const stream = await store.streamToDurable({ name }, query, (records) => {
          calls.push(...numbersOf(records))
        })
        await stream.unsubscribe()
        expect(calls).toEqual(all)
        // The store has learnt the version by the query.
        await store.appendIf([event('unrelated', {})], query, found.current_context_version)
      }
    }
  )

  test('a limit takes the first rows, whatever the context', async () => {
    const store = await filled(create)
    const query = { ...having({ odd: true }), min_sequence_number: 1n }
    const found = await store.query(query, { limit: 2 })
    expect(numbersOf(found.event_records)).toEqual([3, 5])
    expect(found.last_returned_sequence_number).toBe(5n)
    expect(found.current_context_version).toBe(9n)
    for (const limit of [4, 100, Number.MAX_SAFE_INTEGER, undefined, null]) {
      expect((await store.query(query, { limit })).event_records).toHaveLength(4)
    }
  })

  test('a long result is complete and in order', async () => {
    const store = create()
    const note = 'x'.repeat(1_000)
    for (let from = 0; from < LARGE; from += 100) {
      await store.append(Array.from({ length: 100 }, (_, i) => event('n', { n: from + i, note })))
    }
    const expected = Array.from({ length: LARGE }, (_, i) => i + 1)
    const all = await store.query()
    expect(numbersOf(all.event_records)).toEqual(expected)
    expect(all.current_context_version).toBe(BigInt(LARGE))
    expect(all.event_records.every(({ payload }, i) => payload.n === i)).toBe(true)
    const most = await store.query({ min_sequence_number: 10n }, { limit: LARGE - 200 })
    expect(numbersOf(most.event_records)).toEqual(expected.slice(10, LARGE - 190))
    expect(most.current_context_version).toBe(BigInt(LARGE))
    expect(numbersOf(await collect(store.read()))).toEqual(expected)
    const backwards = await collect(store.read({}, { backwards: true }))
    expect(numbersOf(backwards)).toEqual(expected.toReversed())
    expect(backwards[0]).toEqual(all.event_records.at(-1))
  })

  test('a long result is one snapshot while others append', async () => {
    const store = create()
    const note = 'x'.repeat(1_000)
    const batch = () => Array.from({ length: 100 }, () => event('n', { note }))
    for (let i = 0; i < 10; i++) await store.append(batch())
    const querying = store.query(having({ note }))
    const appending = Promise.all(Array.from({ length: 10 }, () => store.append(batch())))
    const found = await querying
    await appending
    const version = Number(found.current_context_version)
    expect(version % 100).toBe(0)
    expect(numbersOf(found.event_records)).toEqual(Array.from({ length: version }, (_, i) => i + 1))
  })

  test('events of all sizes are read as they were appended', async () => {
    const store = create()
    const sizes = [10, 200_000, 20, 3_000_000, 5_000_000, 30, 9_000_000, 40, 7_000]
    const appended = []
    const append = async (events) => {
      await store.append(events)
      appended.push(...events)
    }
    // Small ones first: what comes then is longer than those before it let expect.
    await append(Array.from({ length: 800 }, (_, n) => event('small', { n })))
    for (const [n, size] of sizes.entries()) {
      await append([event('sized', { n, text: 'x'.repeat(size) }), event('small', { n })])
    }
    await append(Array.from({ length: 800 }, (_, n) => event('small', { n, text: 'x'.repeat(n) })))
    const forwards = await collect(store.read())
    expect(numbersOf(forwards)).toEqual(appended.map((_, n) => n + 1))
    const isSame = ({ event_type: type, payload }, n) =>
      type === appended[n].event_type &&
      JSON.stringify(payload) === JSON.stringify(appended[n].payload)
    expect(forwards.every(isSame)).toBe(true)
    const backwards = await collect(store.read(null, { backwards: true }))
    expect(numbersOf(backwards)).toEqual(numbersOf(forwards).reverse())
    expect(backwards.reverse().every(isSame)).toBe(true)
    const some = await collect(store.read(null, { after: 801n, before: 812n }))
    expect(numbersOf(some)).toEqual(Array.from({ length: 10 }, (_, n) => 802 + n))
    await store.close()
  })

  test('every event has the type and the time of its own batch', async () => {
    const store = create()
    const types = Array.from({ length: 300 }, (_, n) => `type "${n % 150}"`)
    const times = []
    for (let from = 0; from < types.length; from += 3) {
      await store.append(types.slice(from, from + 3).map((type, n) => event(type, { n })))
    }
    for (const { sequence_number: number } of await collect(store.read())) {
      const { event_records: alone } = await store.query(
        { min_sequence_number: number - 1n },
        { limit: 1 }
      )
      times.push(alone[0].occurred_at)
    }
    const together = await collect(store.read())
    expect(together.map(({ event_type: type }) => type)).toEqual(types)
    expect(together.map(({ occurred_at: time }) => time)).toEqual(times)
    expect(times).toEqual([...times].sort())
    await store.close()
  })

  test('read honours its bounds in both directions', async () => {
    const store = await filled(create)
    const read = async (query, options) => numbersOf(await collect(store.read(query, options)))
    for (const pageSize of [1, 2, 3, 9, 1000, undefined, null]) {
      expect(await read({}, { pageSize })).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
      expect(await read({}, { pageSize, after: 2n, before: 8 })).toEqual([3, 4, 5, 6, 7])
      expect(await read({}, { pageSize, after: 2, before: 8n, backwards: true })).toEqual([
        7, 6, 5, 4, 3
      ])
      expect(await read({}, { pageSize, limit: 4 })).toEqual([1, 2, 3, 4])
      expect(await read(null, { pageSize, limit: 4, backwards: true })).toEqual([9, 8, 7, 6])
      expect(await read(having({ odd: true }), { pageSize, after: 1n })).toEqual([3, 5, 7, 9])
      expect(await read({ min_sequence_number: 7 }, { pageSize })).toEqual([8, 9])
    }
    expect(await read({}, { after: 9n })).toEqual([])
    expect(await read({}, { before: 0n })).toEqual([])
    expect(await read({}, { before: 1n, backwards: true })).toEqual([])
    expect(await read({}, { after: 5n, before: 5n })).toEqual([])
    expect(await read({}, { after: 7n, before: 3n, backwards: true })).toEqual([])
    expect(await read({}, { before: 2n ** 70n, after: 2n ** 69n })).toEqual([])
  })

  test('read ends at the head of its start, and can be left early', async () => {
    const store = await filled(create)
    const seen = []
    for await (const { sequence_number: number } of store.read({}, { pageSize: 2 })) {
      seen.push(Number(number))
      await store.append([event('n', {})])
    }
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    const iterable = store.read({}, { pageSize: 2 })
    for await (const { sequence_number: number } of iterable) if (number === 3n) break
    expect(numbersOf(await collect(iterable))).toHaveLength(18)
  })

  test('calls of next may overlap', async () => {
    const store = await filled(create)
    const iterator = store.read({}, { pageSize: 2 })[Symbol.asyncIterator]()
    const steps = await Promise.all(Array.from({ length: 12 }, () => iterator.next()))
    const values = steps.filter(({ done }) => !done).map(({ value }) => value)
    expect(numbersOf(values)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(steps.slice(9)).toEqual(Array(3).fill({ done: true, value: undefined }))
  })

  test('a signal ends a read with its reason', async () => {
    const store = await filled(create)
    const reason = new Error('enough')
    const aborted = store.read({}, { signal: AbortSignal.abort(reason) })
    await expect(collect(aborted)).rejects.toBe(reason)
    const controller = new AbortController()
    const seen = []
    const reading = async () => {
      for await (const record of store.read({}, { signal: controller.signal, pageSize: 100 })) {
        seen.push(record)
        if (seen.length === 2) controller.abort(reason)
      }
    }
    await expect(reading()).rejects.toBe(reason)
    expect(seen).toHaveLength(2)
    const fresh = new AbortController()
    const iterator = store.read({}, { signal: fresh.signal })[Symbol.asyncIterator]()
    const first = iterator.next()
    fresh.abort(reason)
    await expect(first).rejects.toBe(reason)
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
  })

  test('head is the newest sequence number', async () => {
    const store = await filled(create)
    expect(await store.headSequenceNumber()).toBe(9n)
    await store.append([event('n', {})])
    expect(await store.headSequenceNumber()).toBe(10n)
  })
})
