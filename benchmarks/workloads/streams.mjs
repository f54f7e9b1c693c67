// W7 durable replay; W8 live delivery, and what streams cost. Only for ours: no peer delivers committed batches in
// order from a stored position within the process.

import { setTimeout as pause } from 'node:timers/promises'

import { TYPES, event, itemsOf } from '../events.mjs'
import { grownBy, interleaved, median, now, percentile, sample } from '../measure.mjs'
import { number } from '../report.mjs'
import { Worker } from '../worker.mjs'

/** A log in which every event is a batch of its own. */
async function fillWithSingles(store, size) {
  const items = itemsOf(size)
  let n = 0
  const lane = async () => {
    while (n < size) await store.append([event(n++, items)])
  }
  await Promise.all(Array.from({ length: 1024 }, lane))
}

export async function W7(bench) {
  const { report, store: kind, label, openFresh } = bench
  const size = kind === 'sqlite' ? bench.sizes.at(-1) : Math.min(bench.sizes.at(-1), 100_000)
  const store = await openFresh()
  console.error(`  … ${number(size)} batches of one event are stored`)
  await fillWithSingles(store, size)
  const rates = {}
  for (const [maxEventsPerCall, least] of [
    [1, 100_000],
    [500, 300_000]
  ]) {
    const per = maxEventsPerCall === 1 ? 'a batch per call' : `${maxEventsPerCall} events per call`
    const found = []
    let grown = 0
    for (let round = 0; round < bench.rounds; round++) {
      let count = 0
      const start = now()
      const { result: stream, megabytes } = await grownBy((look) =>
        store.streamAllDurable(
          { name: `replay-${maxEventsPerCall}-${round}` },
          async (records) => {
            count += records.length
            if (count % 10_000 < records.length) look()
          },
          { maxEventsPerCall }
        )
      )
      if (count !== size) throw new Error(`${count} of ${size} events were replayed`)
      found.push(count / (now() - start))
      grown = Math.max(grown, megabytes)
      await stream.unsubscribe()
    }
    rates[per] = { rate: median(found), least: Math.min(...found), most: Math.max(...found) }
    const title = `W7 ${label}: durable replay of ${number(size)} batches of one event, ${per}`
    if (kind === 'sqlite') report.target(title, rates[per].rate, { least, unit: '/s' })
    report.target(`${title}, resident memory that it took`, grown, { most: 100, unit: ' MB' })
  }
  report.rates(
    `W7 ${label}: durable replay of ${number(size)} batches of one event into an async handler`,
    { workload: 'W7', store: kind },
    rates
  )
  await store.close()
}

export async function W8(bench) {
  await liveLatency(bench)
  await bystanders(bench)
  if (bench.store === 'memory') return
  await idle(bench)
  await otherProcess(bench)
}

/** How long a handler call comes after the append that it is told of has resolved. */
async function liveLatency({ report, store: kind, label, openFresh, seconds }) {
  const store = await openFresh()
  let called
  await store.streamAll(() => called(performance.now()))
  const delays = []
  const start = now()
  for (let n = 0; now() - start < 2 * seconds; n++) {
    const handled = new Promise((resolve) => {
      called = resolve
    })
    await store.append([event(n, 100)])
    const committed = performance.now()
    delays.push(((await handled) - committed) * 1000)
  }
  await store.close()
  const title = `W8 ${label}: handler call after its append has resolved`
  report.facts(title, { workload: 'W8', store: kind }, [
    ['p50', `${number(median(delays))} µs`],
    ['p99', `${number(percentile(delays, 0.99))} µs`]
  ])
  if (kind === 'sqlite') report.target(`${title}, p50`, median(delays), { most: 100, unit: ' µs' })
}

/** What live streams that take nothing of an append cost it. */
async function bystanders({ report, store: kind, label, openFresh, rounds, seconds }) {
  const store = await openFresh()
  let n = 0
  const append = () => store.append([event(n++, 100)])
  const beside = async (options) => {
    const running = []
    for (let at = 0; at < 100; at++) {
      const filter = {
        event_types: [TYPES[at % TYPES.length]],
        payload_predicates: [{ item_id: `nobody-${at}` }]
      }
      running.push(await store.streamTo({ filters: [filter] }, () => {}))
    }
    const found = await sample(append, { ...options, callers: 64 })
    for (const stream of running) await stream.unsubscribe()
    return found
  }
  const found = await interleaved(
    {
      'beside 100 live streams of other events': beside,
      'beside none': (options) => sample(append, { ...options, callers: 64 })
    },
    { rounds, seconds }
  )
  const title = `W8 ${label}: 64 appends in flight beside live streams`
  report.rates(title, { workload: 'W8-beside', store: kind }, found)
  const [many, none] = Object.values(found)
  report.target(`${title}, beside 100 to beside none`, many.rate / none.rate, { least: 0.5 })
  await store.close()
}

async function idle({ report, store: kind, label, openFresh }) {
  const count = 1000
  const store = await openFresh()
  await store.append([event(1, 10)])
  const start = now()
  const names = Array.from({ length: count }, (_, at) => `idle-${at}`)
  await Promise.all(names.map((name) => store.streamAllDurable({ name }, () => {})))
  const took = (now() - start) * 1000
  await pause(500)
  const before = process.cpuUsage()
  const since = now()
  await pause(3000)
  const { user, system } = process.cpuUsage(before)
  const percent = (user + system) / 1e4 / (now() - since)
  await store.close()
  const title = `W8 ${label}: ${number(count)} durable streams`
  report.facts(title, { workload: 'W8-idle', store: kind }, [
    ['registered in', `${number(took)} ms`],
    ['idle', `${number(percent)} % of one core`]
  ])
  report.target(`${title}, registration`, took, { most: 1000, unit: ' ms' })
  report.target(`${title}, idle`, percent, { most: 1, unit: ' % of one core' })
}

/** From before another process's append until it is handled here. */
async function otherProcess({ report, store: kind, label, freshPlace, openOurs, seconds }) {
  const place = await freshPlace()
  const store = await openOurs(place)
  const count = seconds < 1 ? 50 : 300
  const delays = []
  let done
  const all = new Promise((resolve) => {
    done = resolve
  })
  const stream = await store.streamTo({ filters: [{ event_types: ['told'] }] }, ([{ payload }]) => {
    delays.push(performance.timeOrigin + performance.now() - payload.at)
    if (delays.length === count) done()
  })
  const worker = await Worker.start({ kind, place, items: 100, which: 9 })
  await worker.ask({ command: 'tell', count })
  await all
  await worker.end()
  await stream.unsubscribe()
  await store.close()
  const title = `W8 ${label}: another process's append until it is handled here`
  report.facts(title, { workload: 'W8-other', store: kind }, [
    ['p50', `${number(median(delays))} ms`],
    ['p99', `${number(percentile(delays, 0.99))} ms`]
  ])
  if (kind === 'sqlite') {
    report.target(`${title}, p99`, percentile(delays, 0.99), { most: 50, unit: ' ms' })
  } else report.target(`${title}, p50`, median(delays), { most: 5, unit: ' ms' })
}
