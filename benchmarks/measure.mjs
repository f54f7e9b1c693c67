// How figures are taken.

import * as fs from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'

export const now = () => performance.now() / 1000
const sorted = (values) => [...values].sort((a, b) => a - b)
export const median = (values) => sorted(values)[Math.floor(values.length / 2)]
export const percentile = (values, p) => sorted(values)[Math.floor(values.length * p)]

/** Quantiles of a distribution that is plotted. */
const QUANTILES = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]

function distribution(values) {
  const all = sorted(values)
  return Object.fromEntries(QUANTILES.map((p) => [p, all[Math.floor(all.length * p)]]))
}

/**
 * Keeps `callers` at work for some seconds; `step(which)` is one operation, `false` (or a promise of it) if it came to
 * nothing. `rate`: of those that came to something, per second; `latency`: quantiles of an operation's
 * microseconds; `loopDelay`: p99 of the event loop's delay in milliseconds, 1 ms of the timer's included; `unserved`:
 * the share of the time for which its thread had something to do and no processor, where the system tells.
 */
export async function sample(step, { callers = 1, seconds }) {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const times = []
  delay.enable()
  const unservedBefore = unserved()
  const start = now()
  const lane = async (which) => {
    while (now() - start < seconds) {
      const since = performance.now()
      if ((await step(which)) !== false) times.push((performance.now() - since) * 1000)
    }
  }
  await Promise.all(Array.from({ length: callers }, (_, which) => lane(which)))
  const took = now() - start
  delay.disable()
  return {
    unserved: (unserved() - unservedBefore) / took,
    rate: times.length / took,
    latency: distribution(times),
    // The timer that never ran was late by all the time that there was.
    loopDelay: delay.count > 0 ? delay.percentile(99) / 1e6 : took * 1000
  }
}

/** For how many seconds this thread has waited for a processor; Linux only. */
function unserved() {
  try {
    return Number(fs.readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e9
  } catch {
    return NaN
  }
}

/** Middle, least and most of several samples of one side. */
function summary(samples) {
  const rates = sorted(samples.map(({ rate }) => rate))
  const middle = samples.find(({ rate }) => rate === rates[Math.floor(rates.length / 2)])
  const latest = samples.reduce((one, other) => (other.loopDelay > one.loopDelay ? other : one))
  return {
    rate: middle.rate,
    least: rates[0],
    most: rates.at(-1),
    latency: middle.latency,
    count: middle.count,
    usage: middle.usage,
    loopDelay: latest.loopDelay,
    unserved: latest.unserved
  }
}

/**
 * Samples all sides in turns, so that noise of the machine meets each of them, after a short turn of
 * each that does not count. `sides`: `{ name: measure({ seconds }) }`; resolves to `{ name: summary }`, without those
 * that had nothing to tell in one of their turns.
 */
export async function interleaved(sides, { rounds, seconds }) {
  const samples = new Map(Object.keys(sides).map((name) => [name, []]))
  for (const measure of Object.values(sides)) await measure({ seconds: seconds / 5 })
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of Object.entries(sides)) {
      const found = await measure({ seconds })
      if (found === undefined) samples.delete(name)
      else samples.get(name)?.push(found)
    }
  }
  return Object.fromEntries([...samples].map(([name, all]) => [name, summary(all)]))
}

/** Of 200 writes of 4 KiB to a file in `folder`: microseconds. */
export function fsyncLatency(folder) {
  const path = join(folder, 'fsync')
  const file = fs.openSync(path, 'w')
  const times = []
  for (let n = 0; n < 200; n++) {
    fs.writeSync(file, Buffer.alloc(4096))
    const start = performance.now()
    fs.fsyncSync(file)
    times.push((performance.now() - start) * 1000)
  }
  fs.closeSync(file)
  fs.rmSync(path)
  return { p50: median(times), p99: percentile(times, 0.99) }
}

/** Samples the resident memory while `work` runs: by how many megabytes it grew at most. */
export async function grownBy(work) {
  globalThis.gc?.()
  const before = process.memoryUsage.rss()
  let peak = before
  const look = () => (peak = Math.max(peak, process.memoryUsage.rss()))
  const result = await work(look)
  look()
  return { result, megabytes: (peak - before) / 1e6 }
}
