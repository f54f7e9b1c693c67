// Live and durable streams on the SQLite store.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { FactstrSqliteStore } from '../index.js'
import { TYPES, event, itemsOf } from './events.mjs'
import { median, now, number, percentile, rate, report } from './measure.mjs'

/** How long a handler call comes after the append that it is told of has resolved. */
async function liveLatency(folder, count) {
  const store = await FactstrSqliteStore.open(join(folder, 'live.db'))
  let called
  await store.streamAll(() => called(performance.now()))
  const delays = []
  for (let n = 0; n < count; n++) {
    const handled = new Promise((resolve) => {
      called = resolve
    })
    await store.append([event(n, 100)])
    const committed = performance.now()
    delays.push(((await handled) - committed) * 1000)
  }
  const p50 = median(delays)
  report('live handler call after its append has resolved', {
    ours: `p50 ${number(p50)} µs, p99 ${number(percentile(delays, 0.99))} µs`,
    target: 'p50 < 100 µs',
    met: p50 < 100
  })
  await store.close()
}

/** A log in which every event is a batch of its own. */
async function fillWithSingles(path, size) {
  const store = await FactstrSqliteStore.open(path)
  const items = itemsOf(size)
  let n = 0
  const lane = async () => {
    while (n < size) await store.append([event(n++, items)])
  }
  await Promise.all(Array.from({ length: 1024 }, lane))
  await store.close()
}

async function replay(path, size, maxEventsPerCall, least) {
  const store = await FactstrSqliteStore.open(path)
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  let peak = before
  let count = 0
  const start = now()
  const handle = async (records) => {
    count += records.length
    if (count % 10_000 < records.length) peak = Math.max(peak, process.memoryUsage().rss)
  }
  const name = `replay-${maxEventsPerCall ?? 1}`
  const options = maxEventsPerCall === undefined ? {} : { maxEventsPerCall }
  const stream = await store.streamAllDurable({ name }, handle, options)
  const perSecond = count / (now() - start)
  await stream.unsubscribe()
  await store.close()
  const how = maxEventsPerCall === undefined ? 'a batch per call' : `${maxEventsPerCall} per call`
  report(`durable replay of ${number(size)} single-event batches, ${how}`, {
    ours: `${number(perSecond)}/s, +${number(Math.max(0, (peak - before) / 1e6))} MB`,
    target: `≥ ${number(least)}/s`,
    met: count === size && perSecond >= least
  })
}

/** What live streams that take nothing of an append cost it. */
async function bystanders(folder, { rounds, seconds }) {
  const store = await FactstrSqliteStore.open(join(folder, 'bystanders.db'))
  let n = 0
  const flight = async () => {
    const lane = async () => {
      for (let turn = 0; turn < 20; turn++) await store.append([event(n++, 100)])
    }
    await Promise.all(Array.from({ length: 64 }, lane))
    return 64 * 20
  }
  const results = { none: [], many: [] }
  for (let round = 0; round < rounds; round++) {
    results.none.push(await rate(flight, seconds))
    const running = []
    for (let at = 0; at < 100; at++) {
      const filter = {
        event_types: [TYPES[at % TYPES.length]],
        payload_predicates: [{ item_id: `nobody-${at}` }]
      }
      running.push(await store.streamTo({ filters: [filter] }, () => {}))
    }
    results.many.push(await rate(flight, seconds))
    for (const stream of running) await stream.unsubscribe()
  }
  const [none, many] = [median(results.none), median(results.many)]
  report('64 appends in flight beside 100 live streams of other events', {
    ours: `${number(many)}/s`,
    theirs: `without ${number(none)}/s`,
    ratio: many / none,
    target: '≥ 0.5',
    met: many / none >= 0.5
  })
  await store.close()
}

async function idle(folder, count) {
  const store = await FactstrSqliteStore.open(join(folder, 'idle.db'))
  await store.append([event(1, 10)])
  const start = now()
  const names = Array.from({ length: count }, (_, at) => `idle-${at}`)
  await Promise.all(names.map((name) => store.streamAllDurable({ name }, () => {})))
  const took = now() - start
  report(`registration of ${number(count)} durable streams`, {
    ours: `${number(took * 1000)} ms`,
    target: '< 1,000 ms',
    met: took < 1
  })
  await pause(500)
  const before = process.cpuUsage()
  const since = now()
  await pause(3000)
  const { user, system } = process.cpuUsage(before)
  const percent = (user + system) / 1e4 / (now() - since)
  report(`CPU of ${number(count)} idle durable streams`, {
    ours: `${number(percent)} % of one core`,
    target: 'not measurable: < 1 %',
    met: percent < 1
  })
  await store.close()
}

/** Batches of another process, until they are handled here. */
async function otherProcess(folder, count) {
  const path = join(folder, 'shared.db')
  const store = await FactstrSqliteStore.open(path)
  const delays = []
  let done
  const all = new Promise((resolve) => {
    done = resolve
  })
  await store.streamAll(([record]) => {
    delays.push(performance.timeOrigin + performance.now() - record.payload.at)
    if (delays.length === count) done()
  })
  const child = fork(fileURLToPath(import.meta.url), ['append', path, String(count)])
  await Promise.all([all, once(child, 'exit')])
  const p99 = percentile(delays, 0.99)
  report("another process's append until it is handled here", {
    ours: `p50 ${number(median(delays))} ms, p99 ${number(p99)} ms`,
    target: '< 50 ms',
    met: p99 < 50
  })
  await store.close()
}

export async function streams(folder, size, { rounds, seconds }) {
  await liveLatency(folder, 2000)
  const path = join(folder, 'singles.db')
  await fillWithSingles(path, size)
  await replay(path, size, undefined, 100_000)
  await replay(path, size, 500, 300_000)
  await bystanders(folder, { rounds, seconds })
  await idle(folder, 1000)
  await otherProcess(folder, 100)
}

if (process.argv[2] === 'append') {
  const [path, count] = process.argv.slice(3)
  const store = await FactstrSqliteStore.open(path)
  for (let n = 0; n < Number(count); n++) {
    await pause(7)
    const at = performance.timeOrigin + performance.now()
    await store.append([{ event_type: 'made', payload: { at } }])
  }
  await store.close()
}
