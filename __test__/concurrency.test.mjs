import { describe, expect, test } from 'vitest'

import { openAt, storeAt } from './processes/place.mjs'
import { ended, message, start } from './processes/processes.mjs'
import { closing, collect, event, having, lasting, numbersOf, stores } from './stores.mjs'

/** Reads the context, decides, appends; after a conflict it reads on from where it was. */
async function increment(store, counter) {
  const context = having({ counter })
  let value = 0
  let cursor
  for (;;) {
    const { event_records: facts, current_context_version: version } = await store.query({
      ...context,
      min_sequence_number: cursor
    })
    value = facts.at(-1)?.payload.value ?? value
    cursor = version ?? undefined
    const fact = event('incremented', { counter, value: value + 1 })
    const { conflict } = await store.appendIf([fact], context, version)
    if (conflict === null) return value + 1
  }
}

const upTo = (count) => Array.from({ length: count }, (_, index) => index + 1)

describe.each(stores)('many callers on the $name store', ({ create }) => {
  test('of 100 racers on one context exactly one wins, every time', async () => {
    const store = create()
    for (let round = 0; round < 20; round++) {
      const context = having({ round })
      const racers = upTo(100).map(async (racer) => {
        // Staggered: some racers begin after others were answered.
        for (let turn = 0; turn < (racer * 7 + round) % 5; turn++) await null
        return store.appendIf([event('won', { round, racer })], context, null)
      })
      const results = await Promise.all(racers)
      const winners = results.filter(({ conflict }) => conflict === null)
      expect(winners).toHaveLength(1)
      const version = winners[0].append_result.last_sequence_number
      for (const { conflict } of results) {
        if (conflict === null) continue
        expect(conflict).toEqual({
          expected_context_version: null,
          actual_context_version: version
        })
      }
    }
    expect(await store.headSequenceNumber()).toBe(20n)
  })

  test('64 callers on one hot context lose no increment', async () => {
    const store = create()
    const values = await Promise.all(upTo(64).map(() => increment(store, 'hot')))
    expect(values.toSorted((a, b) => a - b)).toEqual(upTo(64))
  })

  test('callers on contexts of their own never meet', async () => {
    const store = create()
    await Promise.all(
      upTo(64).map(async (counter) => {
        let version = null
        for (let value = 1; value <= 20; value++) {
          const fact = event('incremented', { counter, value })
          const result = await store.appendIf([fact], having({ counter }), version)
          expect(result.conflict).toBe(null)
          version = result.append_result.last_sequence_number
        }
      })
    )
    expect(numbersOf(await collect(store.read()))).toEqual(upTo(64 * 20))
  })

  test('calls are committed in their order', async () => {
    const store = create()
    const calls = upTo(500).map((n) =>
      n % 3 === 0
        ? store.appendIf([event('n', { n })], having({ n }), null)
        : store.append(upTo(1 + (n % 4)).map((part) => event('n', { n, part })))
    )
    await Promise.all(calls)
    const records = await collect(store.read())
    expect(numbersOf(records)).toEqual(upTo(records.length))
    const order = records.map(({ payload }) => payload.n)
    expect(order).toEqual(order.toSorted((a, b) => a - b))
  })

  test('a read sees each event once while others append', async () => {
    const store = create()
    await store.append(upTo(3000).map((n) => event('n', { n })))
    const seen = []
    const appends = []
    for await (const { payload } of store.read({}, { pageSize: 50 })) {
      seen.push(payload.n)
      if (seen.length % 100 === 0) appends.push(store.append([event('n', { n: -1 })]))
    }
    await Promise.all(appends)
    expect(seen).toEqual(upTo(3000))
  })
})

describe.each(lasting)('one place of the $name store', ({ place }) => {
  test('several handles agree', async () => {
    const shared = place()
    const handles = upTo(4).map(() => closing(storeAt(shared)))
    const values = await Promise.all(
      upTo(40).map((n) => increment(handles[n % handles.length], 'shared'))
    )
    expect(values.toSorted((a, b) => a - b)).toEqual(upTo(40))
    for (const handle of handles) {
      expect(await handle.headSequenceNumber()).toBe(40n)
      const { event_records: facts } = await handle.query(having({ counter: 'shared' }))
      expect(numbersOf(facts)).toEqual(upTo(40))
    }
  })

  test('several processes race, and every context has one winner', async () => {
    const shared = place()
    const rounds = 100
    const processes = ['a', 'b', 'c'].map((name) => start('race.mjs', shared, name, rounds))
    await Promise.all(processes.map(message))
    for (const each of processes) each.send('go')
    const scores = await Promise.all(processes.map(message))
    for (const each of processes) expect(await ended(each)).toBe(0)

    expect(scores.reduce((sum, { won }) => sum + won, 0)).toBe(rounds)
    expect(scores.reduce((sum, { conflicts }) => sum + conflicts, 0)).toBe(2 * rounds)
    const store = closing(await openAt(shared))
    const winners = await collect(store.read({ filters: [{ event_types: ['won'] }] }))
    const contested = winners.map(({ payload }) => payload.round).toSorted((a, b) => a - b)
    expect(contested).toEqual(upTo(rounds).map((n) => n - 1))
    expect(numbersOf(await collect(store.read()))).toEqual(upTo(4 * rounds))
  })
})
