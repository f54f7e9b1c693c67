// The package as an application in Node.js has it, for W12: what benchmarks/core does in Rust, with the same commands
// (its main.rs lists them) by the same means. A process of its own, so that what is counted of it is nobody else's.

import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { createInterface } from 'node:readline'
import { getHeapStatistics } from 'node:v8'

import { growing, unrelated } from './events.mjs'
import { contextOf, decision, wandering } from './loops.mjs'
import { now, percentile } from './measure.mjs'
import { openOurs } from './sides/ours.mjs'

const FILLERS = 64
const FILL_BATCH = 100

/** Above what stores are filled with. */
let fresh = 1e8

/**
 * A work: `prepare()` makes what a step needs, before it, so that it need not be counted; `perform(input)` is the step,
 * and resolves to how many it did; `end()`, if there is something to end.
 */
const works = {
  append: (store, { batch = 1 }) => ({
    prepare: () => Array.from({ length: batch }, () => unrelated(fresh++)),
    async perform(facts) {
      await store.append(facts)
      return 1
    }
  }),

  decide(store, { items }) {
    const next = wandering(items, 0)
    return {
      async prepare() {
        const context = contextOf(next())
        const { event_records: facts, current_context_version: version } =
          await store.query(context)
        return [[decision(facts, fresh++, items)], context, version]
      },
      async perform(input) {
        const { conflict } = await store.appendIf(...input)
        if (conflict) throw new Error('a context has changed')
        return 1
      }
    }
  },

  query(store, { items }) {
    const next = wandering(items, 0)
    return {
      prepare: () => contextOf(next()),
      async perform(context) {
        const { event_records: found } = await store.query(context)
        if (found.length < 10) throw new Error('events are missing')
        return 1
      }
    }
  },

  read: (store) => ({
    prepare: () => undefined,
    async perform() {
      let count = 0
      for await (const { payload } of store.read()) if (payload !== undefined) count++
      return count
    }
  }),

  async deliver(store, options) {
    let handled
    const stream = await store.streamAll(() => handled())
    return {
      ...works.append(store, options),
      async perform(facts) {
        const delivered = new Promise((resolve) => {
          handled = resolve
        })
        await store.append(facts)
        await delivered
        return 1
      },
      end: () => stream.unsubscribe()
    }
  }
}

/** What there was of the process since `before`, as core/src/usage.rs has it. */
function usageSince(before) {
  const after = process.resourceUsage()
  const grown = (key) => after[key] - before[key]
  return {
    cpu: grown('userCPUTime') + grown('systemCPUTime'),
    voluntary: grown('voluntaryContextSwitches'),
    involuntary: grown('involuntaryContextSwitches')
  }
}

async function startProfile(path) {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.start')
  return async () => {
    const { profile } = await session.post('Profiler.stop')
    session.disconnect()
    writeFileSync(path, JSON.stringify(profile))
  }
}

const heapUsed = () => process.memoryUsage().heapUsed

/** Bytes that V8 has given out so far. Where it keeps no sum, the heap has to grow all the while. */
const givenOut = () => getHeapStatistics().total_allocated_bytes ?? heapUsed()

const COMMANDS = {
  /** Does nothing to a store that has been filled. */
  async fill({ to }, store) {
    let at = (await store.headSequenceNumber()) === null ? 0 : to
    const factAt = growing({ from: 0, to })
    const lane = async () => {
      while (at < to) {
        const first = at
        at += FILL_BATCH
        const count = Math.min(FILL_BATCH, to - first)
        await store.append(Array.from({ length: count }, (_, k) => factAt(first + k)))
      }
    }
    await Promise.all(Array.from({ length: FILLERS }, lane))
    return {}
  },

  /**
   * Without a look at the loop's delay, whose timer would be counted. With `profile`, a path, V8's profiler writes
   * there what it saw.
   */
  async measure({ work, seconds, callers = 1, profile, ...options }, store) {
    const { prepare, perform, end } = await works[work](store, options)
    const endProfile = profile && (await startProfile(profile))
    const times = []
    let count = 0
    const before = process.resourceUsage()
    const start = now()
    const lane = async () => {
      while (now() - start < seconds) {
        const since = performance.now()
        // Others count while this one waits.
        const done = await perform(await prepare())
        count += done
        times.push((performance.now() - since) * 1000)
      }
    }
    await Promise.all(Array.from({ length: callers }, lane))
    const took = now() - start
    const usage = usageSince(before)
    await endProfile?.()
    await end?.()
    const latency = { 0.5: percentile(times, 0.5), 0.99: percentile(times, 0.99) }
    return { rate: count / took, count, latency, usage }
  },

  /** Started with a young generation that all of it fits into: what is collected within would be missing. */
  async count({ work, steps, ...options }, store) {
    const { prepare, perform, end } = await works[work](store, options)
    // What is made once, and not for each step, is made by the first ones.
    if (work !== 'read') for (let n = 0; n < 1000; n++) await perform(await prepare())
    const inputs = []
    for (let n = 0; n < steps; n++) inputs.push(await prepare())
    globalThis.gc()
    const before = givenOut()
    let highest = heapUsed()
    let count = 0
    for (const input of inputs) {
      count += await perform(input)
      const used = heapUsed()
      if (used < highest - 1e6) throw new Error('the heap was collected while it was counted')
      highest = used
    }
    const heap = givenOut() - before
    await end?.()
    return { count, heap }
  }
}

const { kind, ...place } = JSON.parse(process.env.FACTSTR_BENCH_PLACE)
const store = await openOurs(kind, place)
const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
answer({ ready: true })
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line)
  try {
    answer(await COMMANDS[command](options, store))
  } catch (error) {
    answer({ error: error.message })
  }
}
await store.close()
