// Work for stores while a test does something to their server, and what has become of it.

import { expect } from 'vitest'

import { collect, event, numbersOf } from '../stores.mjs'
import { recorder, until, upTo } from '../streams/streams.mjs'

/** Starts lanes that write, read and stream on each of the stores, until `stop`. */
export async function startLoad(stores, { lanes = 3, durable = true } = {}) {
  const load = new Load()
  for (const [index, store] of stores.entries()) await load.add(store, index, lanes, durable)
  return load
}

class Load {
  appends = []
  failures = []
  streams = []
  #isOver = false
  #lanes = []
  #next = 0

  async add(store, index, lanes, durable) {
    const live = recorder()
    this.streams.push({ store, recorder: live, subscription: await store.streamAll(live.handle) })
    if (durable) {
      const kept = recorder(async () => {})
      const name = `durable ${index}`
      const subscription = await store.streamAllDurable({ name }, kept.handle)
      this.streams.push({ store, name, recorder: kept, subscription })
    }
    for (const lane of upTo(lanes)) this.#lanes.push(this.#write(store, `${index} ${lane}`))
    this.#lanes.push(this.#query(store))
  }

  async #write(store, lane) {
    for (let n = 0; !this.#isOver; n++) {
      const id = `${lane} ${this.#next++}`
      const events = upTo(1 + (n % 3)).map((part) => event('written', { id, lane, n, part }))
      const entry = { id, events, lane }
      try {
        if (n % 2) {
          const context = { filters: [{ payload_predicates: [{ id }] }] }
          const { append_result: result } = await store.appendIf(events, context, null)
          entry.first = Number(result.first_sequence_number)
        } else {
          const result = await store.append(events)
          entry.first = Number(result.first_sequence_number)
        }
      } catch (error) {
        entry.error = error
      }
      this.appends.push(entry)
    }
  }

  async #query(store) {
    while (!this.#isOver) {
      try {
        const after = this.appends.findLast(({ first }) => first)?.first ?? 0
        const { event_records: found } = await store.query(
          { min_sequence_number: after - 1 < 0 ? 0 : after - 1 },
          { limit: 10 }
        )
        // What was acknowledged can be read.
        if (after > 0) expect(numbersOf(found)[0]).toBe(Math.max(after, 1))
      } catch (error) {
        this.failures.push(error)
      }
    }
  }

  get acknowledged() {
    return this.appends.filter(({ error }) => error === undefined).length
  }

  /** Waits until so many more appends of the load are acknowledged. */
  async more(count) {
    const enough = this.acknowledged + count
    await until(() => this.acknowledged >= enough)
  }

  async stop() {
    this.#isOver = true
    await Promise.all(this.#lanes)
  }

  /** Checks what each caller and each stream was told against the log. `codes`: of failures that may be. */
  async check(store, codes = ['BackendFailure']) {
    const records = await collect(store.read())
    expect(numbersOf(records)).toEqual(upTo(records.length))
    const places = new Map()
    for (const { sequence_number: number, payload } of records) {
      places.set(payload.id, [...(places.get(payload.id) ?? []), [Number(number), payload.part]])
    }
    for (const { id, events, first, error } of this.appends) {
      const whole = events.map((_, part) => [first + part, part + 1])
      const found = places.get(id) ?? []
      if (error === undefined) expect([id, found]).toEqual([id, whole])
      else if (error.code === 'BackendFailure') expect([id, found]).toEqual([id, []])
      else if (found.length > 0) expect([id, found.length]).toEqual([id, events.length])
    }
    const failed = [...this.appends.map(({ error }) => error), ...this.failures].filter(Boolean)
    for (const error of failed) expect(codes, error.stack).toContain(error.code)
    // The calls of one caller are in their order.
    const newest = new Map()
    for (const { payload } of records) {
      expect(payload.n).toBeGreaterThanOrEqual(newest.get(payload.lane) ?? 0)
      newest.set(payload.lane, payload.n)
    }
    await this.#checkStreams(records)
    return { records, failed }
  }

  async #checkStreams(records) {
    const batches = []
    for (let at = 0; at < records.length;) {
      const size = records.findIndex(({ payload }, index) => index > at && payload.part === 1)
      const end = size === -1 ? records.length : size
      batches.push(numbersOf(records.slice(at, end)))
      at = end
    }
    for (const { recorder: seen, subscription, name } of this.streams) {
      const expected = () =>
        batches.slice(batches.findIndex(([first]) => first === seen.calls[0][0]))
      await until(() => seen.calls.at(-1)?.at(-1) >= records.length)
      expect([name, seen.calls]).toEqual([name, expected()])
      await until(() => Number(subscription.position) === records.length)
    }
  }
}
