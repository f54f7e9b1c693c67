// Random operations on each store and on the simplest implementation one can think of, seeded.

import { describe, expect, test } from 'vitest'

import { openAt } from '../processes/place.mjs'
import { collect, stores } from '../stores.mjs'
import { matches } from './matching.mjs'
import { generator } from './random.mjs'

/** The oracle: an array, scanned. */
class Model {
  events = []

  append(events) {
    for (const each of events) this.events.push(each)
    return {
      first_sequence_number: BigInt(this.events.length - events.length + 1),
      last_sequence_number: BigInt(this.events.length),
      committed_count: BigInt(events.length)
    }
  }

  numbers(query, after = 0) {
    const found = []
    for (let at = after; at < this.events.length; at++) {
      if (matches(query, this.events[at])) found.push(at + 1)
    }
    return found
  }

  version(query) {
    for (let at = this.events.length; at > 0; at--) {
      if (matches(query, this.events[at - 1])) return BigInt(at)
    }
    return null
  }

  appendIf(events, query, expected) {
    const actual = this.version(query)
    if (actual === expected) return { append_result: this.append(events), conflict: null }
    return {
      append_result: null,
      conflict: { expected_context_version: expected, actual_context_version: actual }
    }
  }
}

const TYPES = ['a', 'b', 'c', 'd']
const SCALARS = [0, 1, 2, -1, 1.5, '', 'x', 'y', '1', true, false, null]

function payload(random, ids, depth = 0) {
  const kind = random.below(depth > 2 ? 1 : 6)
  if (kind === 0) return random.pick(SCALARS)
  if (kind === 1) {
    return Array.from({ length: random.below(4) }, () => payload(random, ids, depth + 1))
  }
  const object = {}
  if (depth === 0) object.id = random.below(ids)
  for (const key of ['k', 'l', 'm']) {
    if (random.chance(0.4)) object[key] = payload(random, ids, depth + 1)
  }
  return object
}

/** A part of something that was stored, mostly; so it matches often enough. */
function part(random, value) {
  if (Array.isArray(value)) {
    return value.filter(() => random.chance(0.5)).map((each) => part(random, each))
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(() => random.chance(0.5))
    return Object.fromEntries(entries.map(([key, each]) => [key, part(random, each)]))
  }
  return random.chance(0.9) ? value : random.pick(SCALARS)
}

function predicate(random, model, ids) {
  if (random.chance(0.3)) return { id: random.below(ids) }
  if (model.events.length === 0 || random.chance(0.1)) return payload(random, ids)
  return part(random, random.pick(model.events).payload)
}

function queryOf(random, model, ids) {
  if (random.chance(0.05)) return random.pick([{}, { filters: null }, { filters: [] }])
  const list = (make) => Array.from({ length: random.pick([0, 1, 1, 1, 2, 3]) }, make)
  const filters = Array.from({ length: random.pick([1, 1, 1, 2, 3]) }, () => {
    const filter = {}
    if (random.chance(0.4)) filter.event_types = list(() => random.pick([...TYPES, 'none']))
    if (random.chance(0.8)) {
      filter.payload_predicates = list(() => predicate(random, model, ids))
    }
    return filter
  })
  return { filters }
}

function expectation(random, model, query) {
  const actual = model.version(query)
  if (random.chance(0.6)) return actual
  return random.pick([null, 0n, BigInt(random.below(model.events.length + 2)), 2n ** 80n])
}

async function checkQuery(store, model, query, random) {
  const head = model.events.length
  const after = random.chance(0.5) ? undefined : random.below(head + 3)
  const limit = random.chance(0.5) ? undefined : 1 + random.below(20)
  const wanted = model.numbers(query, after ?? 0).slice(0, limit)
  const result = await store.query(
    { ...query, min_sequence_number: after },
    limit === undefined ? undefined : { limit }
  )
  expect(result.event_records.map((record) => Number(record.sequence_number))).toEqual(wanted)
  for (const {
    sequence_number: number,
    event_type: type,
    payload: found
  } of result.event_records) {
    expect({ event_type: type, payload: found }).toEqual(model.events[Number(number) - 1])
  }
  const last = wanted.at(-1)
  expect(result.last_returned_sequence_number).toBe(last === undefined ? null : BigInt(last))
  expect(result.current_context_version).toBe(model.version(query))
}

async function checkRead(store, model, query, random) {
  const head = model.events.length
  const backwards = random.chance(0.5)
  const after = random.chance(0.5) ? undefined : random.below(head + 2)
  const before = random.chance(0.5) ? undefined : random.below(head + 3)
  const limit = random.chance(0.5) ? undefined : 1 + random.below(30)
  let wanted = model.numbers(query, after ?? 0).filter((n) => before === undefined || n < before)
  if (backwards) wanted = wanted.toReversed()
  const options = { backwards, after, before, limit, pageSize: 1 + random.below(20) }
  const records = await collect(store.read(query, options))
  expect(records.map((record) => Number(record.sequence_number))).toEqual(wanted.slice(0, limit))
}

async function drive({ seed, steps, ids, open, batch }) {
  const random = generator(seed)
  const model = new Model()
  let store = await open()
  const newEvents = () =>
    Array.from({ length: 1 + random.below(batch) }, () => ({
      event_type: random.pick(TYPES),
      payload: payload(random, ids)
    }))
  try {
    for (let step = 0; step < steps; step++) {
      const action = random.below(100)
      const query = queryOf(random, model, ids)
      if (action < 25) {
        const events = newEvents()
        expect(await store.append(events)).toEqual(model.append(events))
      } else if (action < 50) {
        const events = newEvents().slice(0, 3)
        const expected = expectation(random, model, query)
        const result = await store.appendIf(events, query, expected)
        expect(result).toEqual(model.appendIf(events, query, expected))
      } else if (action < 85) {
        await checkQuery(store, model, query, random)
      } else if (action < 97) {
        await checkRead(store, model, query, random)
      } else {
        const head = model.events.length
        expect(await store.headSequenceNumber()).toBe(head === 0 ? null : BigInt(head))
        store = await open(store)
      }
    }
  } finally {
    await store.close()
  }
}

/** Opens the store of a place again and again; a memory store that is closed is gone, so it is kept. */
function opener({ name, place }) {
  const shared = place()
  return async (open) => {
    if (open && name === 'memory') return open
    await open?.close()
    return openAt(shared)
  }
}

describe.each(stores)('the $name store does what the model does', (kind) => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])('with seed %i', async (seed) => {
    await drive({ seed, steps: 300, ids: 10, batch: 12, open: opener(kind) })
  })

  test('with enough events for runs and merges of the index', async () => {
    await drive({ seed: 99, steps: 160, ids: 3000, batch: 4000, open: opener(kind) })
  })
})
