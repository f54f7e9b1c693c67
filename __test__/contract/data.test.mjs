import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { event, stores } from '../stores.mjs'

const stored = (payload) => JSON.parse(JSON.stringify(payload))

async function roundTrip(store, payload) {
  const { last_sequence_number: last } = await store.append([event('a', payload)])
  const { event_records: records } = await store.query({ min_sequence_number: last - 1n })
  return records[0].payload
}

describe.each(stores)('data in the $name store', ({ create }) => {
  test('sequence numbers are bigints from 1 without gaps', async () => {
    const store = create()
    const first = await store.append([event('a', 1), event('b', 2)])
    expect(first).toEqual({
      first_sequence_number: 1n,
      last_sequence_number: 2n,
      committed_count: 2n
    })
    await expect(store.append([])).rejects.toThrow()
    const second = await store.append([event('c', 3)])
    expect(second).toEqual({
      first_sequence_number: 3n,
      last_sequence_number: 3n,
      committed_count: 1n
    })
    const { event_records: records } = await store.query()
    expect(records.map((record) => record.sequence_number)).toEqual([1n, 2n, 3n])
    expect(Object.keys(records[0])).toEqual([
      'sequence_number',
      'occurred_at',
      'event_type',
      'payload'
    ])
  })

  test('a batch has one time, in RFC 3339 with microseconds', async () => {
    const store = create()
    const before = Date.now()
    await store.append([event('a', 1), event('b', 2)])
    const after = Date.now()
    const { event_records: records } = await store.query()
    expect(records[0].occurred_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    expect(records[1].occurred_at).toBe(records[0].occurred_at)
    const at = Date.parse(records[0].occurred_at)
    expect(at).toBeGreaterThanOrEqual(before - 1)
    expect(at).toBeLessThanOrEqual(after + 1)
  })

  test('payloads come back as JSON.stringify writes them', async () => {
    const store = create()
    const sparse = [1]
    sparse[3] = 4
    const odd = [
      { at: new Date(0), gone: undefined, also: () => 1, kept: null },
      { n: NaN, i: -Infinity, z: -0, big: 2 ** 64, small: 5e-324, max: Number.MAX_VALUE },
      { toJSON: () => ({ replaced: true }) },
      sparse,
      [undefined, Symbol('s')],
      '',
      'ä 😀 \u2028 "quoted" \\ \n \u0001',
      0.1 + 0.2,
      2 ** 53 + 2,
      [],
      {},
      false,
      null
    ]
    for (const payload of odd) {
      expect(await roundTrip(store, payload)).toStrictEqual(stored(payload))
    }
  })

  test('the order of keys is kept, and __proto__ is a key', async () => {
    const store = create()
    const payload = JSON.parse('{"z":1,"a":{"y":1,"b":2},"__proto__":{"x":1},"10":1,"2":2}')
    const back = await roundTrip(store, payload)
    expect(JSON.stringify(back)).toBe(JSON.stringify(payload))
    expect(Object.hasOwn(back, '__proto__')).toBe(true)
    expect(back.x).toBeUndefined()
  })

  test('any JSON value survives', async () => {
    const store = create()
    const json = fc.jsonValue({ maxDepth: 6, stringUnit: 'binary' })
    const text = (value) => JSON.stringify(value)
    await fc.assert(
      fc.asyncProperty(json, async (payload) => {
        fc.pre(!text(payload).includes('\\u0000') && !/\\ud[89a-f]/i.test(text(payload)))
        expect(text(await roundTrip(store, payload))).toBe(text(payload))
      }),
      { numRuns: 300 }
    )
  })

  test('a payload is taken as it is at the time of the call', async () => {
    const store = create()
    const events = [event('a', { n: 1 })]
    const appended = store.append(events)
    events[0].payload.n = 2
    events.push(event('b', 1))
    await appended
    const { event_records: records } = await store.query()
    expect(records.map((record) => record.payload)).toEqual([{ n: 1 }])
  })

  test('event types of any characters come back', async () => {
    const store = create()
    const types = ['a', 'ä"\\\n\u0001', '😀'.repeat(128), ' ', "'; --"]
    await store.append(types.map((type) => event(type, 1)))
    for (const [index, type] of types.entries()) {
      const { event_records: records } = await store.query({ filters: [{ event_types: [type] }] })
      expect(records.map((record) => record.event_type)).toEqual([type])
      expect(records[0].sequence_number).toBe(BigInt(index + 1))
    }
  })
})
