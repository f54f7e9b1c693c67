// The PostgreSQL store. Server and client are on one machine, and fsync is on.

import { FactstrPostgresStore } from '../../index.js'
import { growing, unrelated } from '../events.mjs'
import { contextOf, decide, lanes, wandering, wanderingNumbers } from '../loops.mjs'
import {
  interleaved,
  median,
  now,
  number,
  percentile,
  report,
  reportBound,
  reportVersus
} from '../measure.mjs'
import { RawPg, openPeers } from './peers.mjs'
import { openServer } from './server.mjs'
import { Worker } from './worker.mjs'

const SCHEMA = 'factstr'
/** Distinguishes what is appended by measurements from what a store is filled with. */
let fresh = 1e8

/** Runs all of it; resolves to lines about the server. `patience`: seconds for a peer to be filled. */
export async function postgres(sizes, { rounds, seconds, patience }) {
  const server = await openServer()
  try {
    for (const each of server.header) console.log(each)
    const bench = { server, sizes, rounds, seconds, patience }
    bench.peers = await openPeers(server.url)
    bench.raw = await RawPg.open(server.url)
    for (const { name, missing } of bench.peers) if (missing) absent('everything', name, missing)
    bench.peers = bench.peers.filter(({ missing }) => missing === undefined)
    await onEmptyStore(bench)
    bench.store = await FactstrPostgresStore.connect(server.url, { schema: SCHEMA })
    await onGrowingStore(bench)
    // Their connections would be too many beside those of other processes.
    for (const peer of bench.peers) await peer.close()
    await appends(bench, bench.store, sizes.at(-1), [])
    await processes(bench)
    await live(bench)
    await Promise.all([bench.store.close(), bench.raw.close()])
    return server.header
  } finally {
    await server.stop()
  }
}

function absent(what, name, reason) {
  report(`${what}, ${name}`, { ours: '', theirs: `n/a: ${reason}` })
}

/** A row of the raw side, which has a target, and one of each peer, which is for orientation. */
function reportSides(what, { ours, raw, ...peers }, least) {
  if (raw !== undefined) reportVersus(what, { ours, theirs: raw }, least)
  for (const [name, theirs] of Object.entries(peers))
    reportVersus(`${what}, ${name}`, { ours, theirs })
}

async function onEmptyStore(bench) {
  const store = await FactstrPostgresStore.connect(bench.server.url, { schema: 'factstr_empty' })
  await appends(bench, store, 0, bench.peers)
  await store.close()
}

async function appends({ raw, rounds, seconds }, store, size, peers) {
  const sidesOf = (count, hand) => ({
    ours: () => lanes(count, seconds, async () => !!(await store.append([unrelated(fresh++)]))),
    raw: () => lanes(count, seconds, async () => !!(await hand(unrelated(fresh++)))),
    ...Object.fromEntries(
      peers.map(({ name, append }) => [
        name,
        () => lanes(count, seconds, async () => (await append(unrelated(fresh++)), true))
      ])
    )
  })
  reportSides(
    `PostgreSQL: 64 appends in flight, ${number(size)} stored`,
    await interleaved(
      sidesOf(64, (fact) => raw.appendGrouped([fact])),
      rounds
    ),
    0.5
  )
  reportSides(
    `PostgreSQL: awaited single appends, ${number(size)} stored`,
    await interleaved(
      sidesOf(1, (fact) => raw.appendSingle(fact)),
      rounds
    ),
    0.8
  )
}

/** Batches of 100, 64 in flight; returns the seconds that it took. */
async function fill(append, { from, to }) {
  const factAt = growing({ from, to })
  const start = now()
  let at = from
  let told = now()
  const lane = async () => {
    while (at < to) {
      const first = at
      at += 100
      await append(Array.from({ length: Math.min(100, to - first) }, (_, k) => factAt(first + k)))
      if (now() - told > 5) {
        told = now()
        console.error(`  … ${number(at)} of ${number(to)} events stored`)
      }
    }
  }
  await Promise.all(Array.from({ length: 64 }, lane))
  return now() - start
}

async function onGrowingStore(bench) {
  const { server, sizes, store, raw, patience } = bench
  const took = { ours: 0, raw: 0 }
  let peers = bench.peers
  let from = 0
  for (const to of sizes) {
    took.ours += await fill((batch) => store.append(batch), { from, to })
    took.raw += await fill((batch) => raw.appendGrouped(batch), { from, to })
    const filled = []
    for (const peer of peers) {
      console.error(`  … ${peer.name} is filled to ${number(to)} events`)
      if (await peer.fill({ from, to }, growing({ from, to }), now() + patience)) filled.push(peer)
      else
        absent(
          `PostgreSQL: read, decide, appendIf, ${number(to)} stored`,
          peer.name,
          `not filled in ${patience} s`
        )
    }
    peers = filled
    if (to === sizes.at(-1)) {
      reportVersus(`PostgreSQL: batches of 100 to ${number(to)} events`, {
        ours: to / took.ours,
        theirs: to / took.raw
      })
      await disk(server, to)
    }
    await server.settle()
    if (to === sizes.at(-1)) await fullRead(store)
    await loops(bench, peers, to)
    from = to
  }
  await flatness(bench)
}

/** The largest store and one of the smallest size, in turns. */
async function flatness({ server, sizes, store, rounds, seconds }) {
  const [least, most] = [sizes[0], sizes.at(-1)]
  const small = await FactstrPostgresStore.connect(server.url, { schema: 'factstr_small' })
  await fill((batch) => small.append(batch), { from: 0, to: least })
  await server.settle()
  const loop = (which, size) => {
    const next = wandering(size / 10)
    return () => lanes(1, seconds, () => decide(which, next(), fresh++, size / 10))
  }
  const found = await interleaved({ large: loop(store, most), small: loop(small, least) }, rounds)
  const flat = found.large / found.small
  report('PostgreSQL, one caller: rate at the largest store to the smallest', {
    ours: `${number(found.large)}/s`,
    theirs: `${number(found.small)}/s`,
    ratio: flat,
    target: '≥ 0.8',
    met: flat >= 0.8
  })
  await small.close()
}

async function loops({ store, rounds, seconds }, peers, size) {
  const items = size / 10
  const next = wandering(items)
  const sidesOf = (count) => ({
    ours: () => lanes(count, seconds, () => decide(store, next(), fresh++, items)),
    ...Object.fromEntries(
      peers.map(({ name, loop }) => {
        const item = wanderingNumbers(items)
        return [name, () => lanes(count, seconds, () => loop(item(), fresh++, items))]
      })
    )
  })
  const stored = `${number(size)} stored`
  const single = await interleaved(sidesOf(1), rounds)
  const caller = `PostgreSQL: read, decide, appendIf, one caller, ${stored}`
  reportBound(caller, `${number(single.ours)}/s`, single.ours, { least: 2000, unit: '/s' })
  reportSides(caller, single)
  const many = await interleaved(sidesOf(64), rounds)
  const distinct = `PostgreSQL: 64 such loops on distinct contexts, ${stored}`
  reportBound(distinct, `${number(many.ours)}/s`, many.ours, { least: 15_000, unit: '/s' })
  reportSides(distinct, many)

  const { ours: alone } = sidesOf(1)
  const one = await interleaved({ hot: () => hotContext(store, seconds), alone }, rounds)
  report(`PostgreSQL: 64 loops on one hot context, ${stored}`, {
    ours: `${number(one.hot)}/s`,
    theirs: `alone ${number(one.alone)}/s`,
    ratio: one.hot / one.alone,
    target: '≥ 0.25 of alone',
    met: one.hot / one.alone >= 0.25
  })
}

/** All count the same events, each reading on from its cursor. The counts must come out without a gap. */
async function hotContext(store, seconds) {
  const item = `hot-${fresh++}`
  const context = contextOf(item)
  const known = Array.from({ length: 64 }, () => ({ count: 0, cursor: undefined }))
  let committed = 0
  const perSecond = await lanes(64, seconds, async (which) => {
    const own = known[which]
    const { event_records: facts, current_context_version: version } = await store.query({
      ...context,
      min_sequence_number: own.cursor
    })
    own.count += facts.length
    own.cursor = version ?? undefined
    const fact = { event_type: 'counted', payload: { item_id: item, count: own.count + 1 } }
    const { append_result: done } = await store.appendIf([fact], context, version)
    if (done === null) return false
    committed++
    own.count++
    own.cursor = done.last_sequence_number
    return true
  })
  const { event_records: all } = await store.query(context)
  const wrong = all.findIndex(({ payload }, at) => payload.count !== at + 1)
  if (all.length !== committed || wrong !== -1) {
    throw new Error(`${committed} commits were counted, ${all.length} are stored; wrong: ${wrong}`)
  }
  return perSecond
}

async function fullRead(store) {
  globalThis.gc?.()
  const start = now()
  let count = 0
  for await (const { payload } of store.read()) if (payload !== undefined) count++
  const perSecond = count / (now() - start)
  reportBound(
    `PostgreSQL: read() of ${number(count)} events`,
    `${number(perSecond)}/s`,
    perSecond,
    {
      least: 300_000,
      unit: '/s'
    }
  )
}

async function disk({ pool }, size) {
  const { rows } = await pool.query(
    `SELECT relname AS name, pg_table_size(oid)::float8 AS own, pg_indexes_size(oid)::float8 AS indexes
     FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'
     ORDER BY pg_total_relation_size(oid) DESC`,
    [SCHEMA]
  )
  const [{ raw }] = (await pool.query(`SELECT pg_total_relation_size('raw_events')::float8 AS raw`))
    .rows
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0)
  const per = (bytes) => number(Math.round(bytes / size))
  const parts = rows
    .filter(({ own, indexes }) => (own + indexes) / size >= 0.5)
    .map(({ name, own, indexes }) => `${name} ${per(own)} + ${per(indexes)}`)
  report(`PostgreSQL: bytes on disk per event, ${number(size)} stored (tables + indexes)`, {
    ours: `${per(sum('own') + sum('indexes'))}: ${parts.join(', ')}`,
    theirs: per(raw),
    ratio: (sum('own') + sum('indexes')) / raw
  })
}

async function processes({ server, sizes, rounds, seconds }) {
  const items = sizes.at(-1) / 10
  const workers = await Promise.all(
    [1, 2, 3, 4].map((which) => Worker.start({ url: server.url, schema: SCHEMA, items, which }))
  )
  const all = async (some, count) => {
    const ask = (worker) => worker.ask({ command: 'loops', count, seconds })
    return (await Promise.all(some.map(ask))).reduce((sum, each) => sum + each, 0)
  }
  const { four, one } = await interleaved(
    { four: () => all(workers, 16), one: () => all(workers.slice(0, 1), 64) },
    rounds
  )
  report(`PostgreSQL: four processes with 16 loops each, ${number(sizes.at(-1))} stored`, {
    ours: `${number(four)}/s`,
    theirs: `one with 64: ${number(one)}/s`,
    ratio: four / one,
    target: '≥ 1',
    met: four >= one
  })
  for (const worker of workers) await worker.end()
}

/** From before another process's append until it is handled here. */
async function live({ server, store, sizes, seconds }) {
  const count = seconds < 1 ? 50 : 300
  const delays = []
  const stream = await store.streamTo({ filters: [{ event_types: ['told'] }] }, ([{ payload }]) => {
    delays.push(performance.timeOrigin + performance.now() - payload.at)
  })
  const items = sizes.at(-1) / 10
  const worker = await Worker.start({ url: server.url, schema: SCHEMA, items, which: 9 })
  await worker.ask({ command: 'tell', count })
  const deadline = now() + 10
  while (delays.length < count) {
    if (now() > deadline) throw new Error(`${delays.length} of ${count} appends were delivered`)
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  }
  await worker.end()
  await stream.unsubscribe()
  const p50 = median(delays)
  reportBound(
    "PostgreSQL: another process's append until it is handled here",
    `p50 ${number(p50)} ms, p99 ${number(percentile(delays, 0.99))} ms`,
    p50,
    { most: 5, unit: 'ms' }
  )
}
