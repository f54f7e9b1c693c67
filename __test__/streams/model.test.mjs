// Random lives of streams: appends, registrations, failures, resets, ends and reopened stores, seeded.
// Each stream notes what it was given and how that went; in the end that is held against the log.

import { describe, expect, test } from 'vitest'

import { matches } from '../model/matching.mjs'
import { generator } from '../model/random.mjs'
import { openAt } from '../processes/place.mjs'
import { collect, stores } from '../stores.mjs'
import { until, upTo } from './streams.mjs'

const TYPES = ['a', 'b', 'c']
const QUERIES = [
  {},
  { filters: [{ event_types: ['a'] }] },
  { filters: [{ event_types: ['b', 'c'], payload_predicates: [{ k: 1 }, { k: 2 }] }] },
  { filters: [{ payload_predicates: [{ list: [3] }] }, { event_types: ['c'] }] },
  { filters: [{ event_types: [] }] }
]

const eventOf = (random) => ({
  event_type: random.pick(TYPES),
  payload: { k: random.below(4), list: [random.below(5), random.below(5)] }
})

/** What became of one durable name, over all its registrations. */
class DurableHistory {
  /** Calls with their outcome, and resets, in their order. */
  entries = []
  subscription
  /** Registration in progress, if any. */
  registering

  constructor(name, query, random) {
    this.name = name
    this.query = query
    this.random = random
  }

  handler(failures) {
    return async (records) => {
      const call = { numbers: records.map((record) => Number(record.sequence_number)) }
      this.entries.push(call)
      if (this.random.chance(0.3)) await null
      if (this.random.chance(0.1)) {
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
      if (this.random.chance(failures)) {
        if (this.random.chance(0.5)) return false
        throw new Error('planned')
      }
      call.succeeded = true
    }
  }

  /** Walks through the log as the stream must have. */
  check(batches, isFinal) {
    let cursor = 0
    const matching = (after) =>
      batches.filter(({ last, numbers }) => last > after && numbers.length > 0)
    for (const entry of this.entries) {
      if (entry.reset !== undefined) {
        cursor = entry.reset
        continue
      }
      const rest = matching(cursor)
      const taken = []
      let last = cursor
      while (taken.length < entry.numbers.length && rest.length > 0) {
        const batch = rest.shift()
        taken.push(...batch.numbers)
        last = batch.last
      }
      expect(entry.numbers).toEqual(taken)
      if (entry.succeeded) cursor = last
    }
    if (isFinal) expect(matching(cursor)).toEqual([])
  }
}

/** What a live stream was given. */
class LiveHistory {
  calls = []

  constructor(query, before) {
    this.query = query
    this.before = before
  }

  /** `through`: the head when it ended. */
  check(batches, through) {
    const matching = batches.filter(({ numbers }) => numbers.length > 0)
    const from = matching.findIndex(({ numbers }) => numbers[0] === this.calls[0]?.[0])
    if (from === -1) {
      expect(this.calls).toEqual([])
      return
    }
    expect(matching[from].first).toBeGreaterThan(this.before)
    const expected = matching.slice(from, from + this.calls.length)
    expect(this.calls).toEqual(expected.map(({ numbers }) => numbers))
    if (through !== undefined) {
      // None that was committed after the registration is left out.
      const first = matching.find(({ first: number }) => number > this.registered)
      if (first !== undefined) expect(matching[from].first).toBeLessThanOrEqual(first.first)
      expect(expected.at(-1).last).toBe(matching.at(-1).last)
    }
  }
}

async function drive({ seed, steps, open, reopens }) {
  const random = generator(seed)
  let store = await open()
  /** First and last number of each batch. */
  const ranges = []
  const durables = upTo(4).map(
    (n) => new DurableHistory(`stream-${n}`, random.pick(QUERIES), random)
  )
  const lives = []
  let pending = []

  const append = async () => {
    const events = Array.from({ length: 1 + random.below(6) }, () => eventOf(random))
    const { first_sequence_number: first, last_sequence_number: last } = await store.append(events)
    ranges.push({ first: Number(first), last: Number(last) })
  }

  const register = async (history, failures) => {
    const options = {
      onError() {},
      maxEventsPerCall: random.pick([1, 1, 5, 50]),
      retry: { attempts: random.pick([1, 1, 2, 3, Infinity]), initialDelayMs: random.below(2) },
      ifActive: random.pick(['reject', 'wait'])
    }
    const handle = history.handler(failures)
    try {
      history.subscription = await store.streamToDurable(
        { name: history.name },
        history.query,
        handle,
        options
      )
    } catch (error) {
      expect(['StreamHandlerFailed', 'StoreClosed']).toContain(error.code)
      history.subscription = undefined
    }
    history.registering = undefined
  }

  const step = {
    append: () => pending.push(append()),
    burst() {
      for (let n = 0; n < 20; n++) pending.push(append())
    },
    settle: async () => {
      await Promise.all(pending)
      pending = []
    },
    register() {
      const history = random.pick(durables)
      if (history.registering ?? history.subscription) return
      history.registering = register(history, random.pick([0, 0, 0.05, 0.3]))
    },
    async unsubscribe() {
      const history = random.pick(durables)
      if (history.subscription === undefined) return
      await history.subscription.unsubscribe()
      history.subscription = undefined
    },
    /** A stream that has failed is to be registered again. */
    async notice() {
      for (const history of durables) {
        if (history.subscription === undefined) continue
        const end = await Promise.race([history.subscription.closed, null])
        if (end === null) continue
        expect(end.reason).toBe('handler-failed')
        history.subscription = undefined
      }
    },
    async reset() {
      const history = random.pick(durables)
      await history.registering
      await history.subscription?.unsubscribe()
      history.subscription = undefined
      const reset = random.chance(0.3) ? 0 : (random.pick([{ last: 0 }, ...ranges])?.last ?? 0)
      try {
        await store.resetDurableStream({ name: history.name }, reset)
        history.entries.push({ reset })
      } catch (error) {
        expect(error.code).toBe('DurableStreamNotFound')
        expect(history.entries).toEqual([])
      }
    },
    async live() {
      if (lives.length > 20) return
      const history = new LiveHistory(random.pick(QUERIES), ranges.at(-1)?.last ?? 0)
      const handle = async (records) => {
        history.calls.push(records.map((record) => Number(record.sequence_number)))
        if (random.chance(0.1)) throw new Error('planned')
      }
      history.subscription = await store.streamTo(history.query, handle, { onError() {} })
      history.registered = Number(await store.headSequenceNumber())
      lives.push(history)
    },
    async unsubscribeLive() {
      const history = random.pick([undefined, ...lives])
      await history?.subscription.unsubscribe()
    },
    async reopen() {
      if (!reopens) return
      await step.settle()
      const closing = store.close()
      await closing
      for (const history of durables) {
        await history.registering
        history.subscription = undefined
      }
      store = await open()
    }
  }
  const weighted = [
    ...Array.from({ length: 12 }, () => 'append'),
    ...Array.from({ length: 6 }, () => 'register'),
    ...['burst', 'burst', 'settle', 'settle', 'notice', 'notice', 'notice'],
    ...['unsubscribe', 'unsubscribe', 'reset', 'live', 'unsubscribeLive', 'reopen']
  ]

  try {
    for (let n = 0; n < steps; n++) {
      await step[random.pick(weighted)]()
      if (random.chance(0.3)) {
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
    }
    // Everything comes to an end: the durable streams succeed from now on.
    await step.settle()
    for (const history of durables) {
      // One that waits for itself for ever is no part of this.
      await history.subscription?.unsubscribe()
      await history.registering
      await history.subscription?.unsubscribe()
      await register(history, 0)
    }
    const head = Number((await store.headSequenceNumber()) ?? 0n)
    const records = await collect(store.read())
    const batchesOf = (query) =>
      ranges
        .toSorted((a, b) => a.first - b.first)
        .map(({ first, last }) => ({
          first,
          last,
          numbers: records
            .slice(first - 1, last)
            .filter((record) => matches(query, record))
            .map((record) => Number(record.sequence_number))
        }))
    for (const history of durables) history.check(batchesOf(history.query), true)
    for (const history of lives) {
      const end = await Promise.race([history.subscription.closed, null])
      if (end !== null) {
        history.check(batchesOf(history.query), undefined)
        continue
      }
      const last = batchesOf(history.query).findLast(({ numbers }) => numbers.length > 0)
      const wanted = last !== undefined && last.first > history.registered
      await until(() => !wanted || history.calls.at(-1)?.at(-1) === last.numbers.at(-1))
      history.check(batchesOf(history.query), head)
    }
  } finally {
    await store.close()
  }
}

describe.each(stores)('streams of the $name store do what the log says', ({ name, place }) => {
  test.each(upTo(12))('with seed %i', async (seed) => {
    const shared = place()
    await drive({ seed, steps: 400, reopens: name !== 'memory', open: () => openAt(shared) })
  })
})
