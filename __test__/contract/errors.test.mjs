import { describe, expect, test } from 'vitest'

import { FactstrError } from '../../index.js'
import { collect, event, having, stores } from '../stores.mjs'

const good = event('good', { n: 1 })
const cycle = { inner: {} }
cycle.inner.back = cycle

function nested(levels, leaf = 1) {
  let value = leaf
  for (let level = 0; level < levels; level++) value = level % 2 === 0 ? [value] : { v: value }
  return value
}

const throwing = {
  toJSON() {
    throw new Error('no JSON of me')
  }
}

/** Events that are refused: code and the start of the message. */
const badEvents = [
  [[], 'EmptyAppend', ''],
  [undefined, 'InvalidEvent', 'events: '],
  [null, 'InvalidEvent', 'events: '],
  ['events', 'InvalidEvent', 'events: '],
  [good, 'InvalidEvent', 'events: '],
  [{ length: 1, 0: good }, 'InvalidEvent', 'events: '],
  [[good, null], 'InvalidEvent', 'events[1]: '],
  [[good, undefined], 'InvalidEvent', 'events[1]: '],
  [[good, 'x'], 'InvalidEvent', 'events[1]: '],
  [[good, [1]], 'InvalidEvent', 'events[1]: '],
  [[{}], 'InvalidEvent', 'events[0].event_type: '],
  [[{ payload: 1 }], 'InvalidEvent', 'events[0].event_type: '],
  [[event(7, 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[event(null, 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[event('', 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[event('x'.repeat(513), 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[event('ä'.repeat(257), 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[event('a\0b', 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[event('a\ud800', 1)], 'InvalidEvent', 'events[0].event_type: '],
  [[{ event_type: 'a' }], 'InvalidEvent', 'events[0].payload: '],
  [[event('a', undefined)], 'InvalidEvent', 'events[0].payload: '],
  [[event('a', () => 1)], 'InvalidEvent', 'events[0].payload: '],
  [[event('a', Symbol('s'))], 'InvalidEvent', 'events[0].payload: '],
  [[event('a', 1n)], 'InvalidEvent', 'events[0].payload: '],
  [[good, event('a', { deep: [1, { n: 2n }] })], 'InvalidEvent', 'events[1].payload.deep[1].n: '],
  [[event('a', cycle)], 'InvalidEvent', 'events[0].payload.inner.back: '],
  [[event('a', throwing)], 'InvalidEvent', 'events'],
  [[{ ...good, metadata: {} }], 'InvalidEvent', 'events[0].metadata: '],
  [[{ ...good, eventType: 'a' }], 'InvalidEvent', 'events[0].eventType: '],
  [[good, good, event('a', { note: 'x\0' })], 'InvalidEvent', 'events[2].payload.note: '],
  [[event('a', { 'n\0': 1 })], 'InvalidEvent', 'events[0].payload'],
  [[event('a', { list: ['\udc00'] })], 'InvalidEvent', 'events[0].payload.list[0]: '],
  [[event('a', { '\ud800': 1 })], 'InvalidEvent', 'events[0].payload'],
  [[event('a', { 'a b': ['\ud83d'] })], 'InvalidEvent', 'events[0].payload["a b"][0]: '],
  [[event('a', nested(101))], 'InvalidEvent', 'events[0].payload'],
  [[event('a', nested(20_000))], 'InvalidEvent', 'events[0].payload'],
  [[event('a', 'x'.repeat(2 ** 24 - 1))], 'InvalidEvent', 'events[0].payload: ']
]

/** Queries that are refused, with the start of the message. */
const badQueries = [
  [null, 'query: '],
  [7, 'query: '],
  ['query', 'query: '],
  [[], 'query: '],
  [() => 1, 'query: '],
  [{ filter: [] }, 'query.filter: '],
  [{ filters: [], limit: 1 }, 'query.limit: '],
  [{ filters: {} }, 'query.filters: '],
  [{ filters: 'all' }, 'query.filters: '],
  [{ filters: () => 1 }, 'query.filters: '],
  [{ filters: [null] }, 'query.filters[0]: '],
  [{ filters: [undefined] }, 'query.filters[0]: '],
  [{ filters: [{}, 'x'] }, 'query.filters[1]: '],
  [{ filters: [{}, []] }, 'query.filters[1]: '],
  [{ filters: [{ event_type: ['a'] }] }, 'query.filters[0].event_type: '],
  [{ filters: [{ '$serde_json::private::RawValue': '{}' }] }, 'query.filters[0]'],
  [{ filters: [{ event_types: 'a' }] }, 'query.filters[0].event_types: '],
  [{ filters: [{ event_types: ['a', 1] }] }, 'query.filters[0].event_types[1]: '],
  [{ filters: [{ event_types: [null] }] }, 'query.filters[0].event_types[0]: '],
  [{ filters: [{ event_types: ['a\0'] }] }, 'query.filters[0].event_types[0]: '],
  [{ filters: [{ event_types: ['\ud800'] }] }, 'query.filters[0].event_types[0]: '],
  [{ filters: [{ payload_predicates: {} }] }, 'query.filters[0].payload_predicates: '],
  [having(undefined), 'query.filters[0].payload_predicates[0]: '],
  [having({ a: undefined }), 'query.filters[0].payload_predicates[0].a: '],
  [having({ a: () => 1 }), 'query.filters[0].payload_predicates[0].a: '],
  [having({ a: Symbol('s') }), 'query.filters[0].payload_predicates[0].a: '],
  [having({ a: [1, 2n] }), 'query.filters[0].payload_predicates[0].a[1]: '],
  [having({ a: new Map([[1, 2]]) }), 'query.filters[0].payload_predicates[0].a: '],
  [having({ a: '\0' }), 'query.filters[0].payload_predicates[0].a: '],
  [having({ 'k\0': 1 }), 'query.filters[0].payload_predicates[0]'],
  [having({ a: '\udfff' }), 'query.filters[0].payload_predicates[0].a: '],
  [having(cycle), 'query.filters[0].payload_predicates[0]'],
  [having(nested(101)), 'query.filters[0].payload_predicates[0]'],
  [having(throwing), 'query.filters'],
  [{ min_sequence_number: -1 }, 'query.min_sequence_number: '],
  [{ min_sequence_number: -1n }, 'query.min_sequence_number: '],
  [{ min_sequence_number: 1.5 }, 'query.min_sequence_number: '],
  [{ min_sequence_number: NaN }, 'query.min_sequence_number: '],
  [{ min_sequence_number: 2 ** 53 }, 'query.min_sequence_number: '],
  [{ min_sequence_number: '1' }, 'query.min_sequence_number: ']
]

const badVersions = [-1, -1n, 0.5, NaN, Infinity, 2 ** 53, '1', {}, true]
const badLimits = [0, -1, 1.5, NaN, Infinity, '1', 1n, true, {}]

async function refused(call, code, start) {
  let promise
  expect(() => {
    promise = call()
  }).not.toThrow()
  const error = await promise.then(
    () => undefined,
    (reason) => reason
  )
  expect(error).toBeInstanceOf(FactstrError)
  expect(error).toBeInstanceOf(Error)
  expect(error.name).toBe('FactstrError')
  expect(error.code).toBe(code)
  expect(error.message.slice(0, start.length)).toBe(start)
  expect(error.message.length).toBeGreaterThan(start.length)
  expect(error.message.length).toBeLessThan(2_000)
}

describe.each(stores)('bad input of the $name store', ({ create }) => {
  test('events are refused with their place, and nothing is appended', async () => {
    const store = create()
    for (const [events, code, start] of badEvents) {
      await refused(() => store.append(events), code, start)
      await refused(() => store.appendIf(events, {}, null), code, start)
    }
    expect(await store.headSequenceNumber()).toBe(null)
  })

  test('queries are refused with their place', async () => {
    const store = create()
    for (const [query, start] of badQueries) {
      await refused(() => store.query(query), 'InvalidQuery', start)
      await refused(() => store.appendIf([good], query, null), 'InvalidQuery', start)
      if (query !== null) {
        await refused(() => collect(store.read(query)), 'InvalidQuery', start)
      }
    }
    await refused(() => store.appendIf([good]), 'InvalidQuery', 'query: ')
    for (const version of badVersions) {
      const call = () => store.appendIf([good], {}, version)
      await refused(call, 'InvalidQuery', 'expectedContextVersion: ')
    }
    expect(await store.headSequenceNumber()).toBe(null)
  })

  test('options are refused with their name', async () => {
    const store = create()
    for (const limit of badLimits) {
      await refused(() => store.query({}, { limit }), 'InvalidOptions', 'options.limit: ')
      await refused(() => collect(store.read({}, { limit })), 'InvalidOptions', 'options.limit: ')
      const paged = () => collect(store.read({}, { pageSize: limit }))
      await refused(paged, 'InvalidOptions', 'options.pageSize: ')
    }
    for (const bound of badVersions) {
      for (const name of ['after', 'before']) {
        const read = () => collect(store.read({}, { [name]: bound }))
        await refused(read, 'InvalidOptions', `options.${name}: `)
      }
    }
    const read = (options) => () => collect(store.read({ min_sequence_number: 1 }, options))
    await refused(read({ after: 1 }), 'InvalidOptions', 'options.after: ')
    await refused(read({ backwards: 1 }), 'InvalidOptions', 'options.backwards: ')
    await refused(read({ signal: {} }), 'InvalidOptions', 'options.signal: ')
    await refused(read({ max: 1 }), 'InvalidOptions', 'options.max: ')
    await refused(read('x'), 'InvalidOptions', 'options: ')
    await refused(() => store.query({}, { max: 1 }), 'InvalidOptions', 'options.max: ')
    await refused(() => store.query({}, 7), 'InvalidOptions', 'options: ')
  })

  test('what is exactly at a limit is taken', async () => {
    const store = create()
    await store.append([
      event('x'.repeat(512), 1),
      event('ä'.repeat(256), 1),
      event('deep', nested(100)),
      event('large', 'x'.repeat(2 ** 24 - 2)),
      event('escapes', '\\ud800 \\u0000')
    ])
    const deep = await store.query(having(nested(100)))
    expect(deep.event_records.map((record) => record.event_type)).toEqual(['deep'])
    const { event_records: large } = await store.query({ filters: [{ event_types: ['large'] }] })
    expect(large[0].payload).toHaveLength(2 ** 24 - 2)
    const escapes = await store.query(having('\\ud800 \\u0000'))
    expect(escapes.event_records).toHaveLength(1)
  })

  test('nobody else is disturbed', async () => {
    const store = create()
    const answers = await Promise.allSettled(
      badEvents.flatMap(([events]) => [store.append([good]), store.append(events)])
    )
    expect(answers.map(({ status }) => status)).toEqual(
      badEvents.flatMap(() => ['fulfilled', 'rejected'])
    )
    expect(await store.headSequenceNumber()).toBe(BigInt(badEvents.length))
  })

  test('the stack of an error names the caller', async () => {
    const store = create()
    async function theCaller() {
      await store.append([])
    }
    const error = await theCaller().catch((reason) => reason)
    expect(error.stack).toContain('theCaller')
    expect(error.stack).toContain('errors.test.mjs')
  })
})
