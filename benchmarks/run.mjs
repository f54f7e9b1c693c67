// Measures through the public API, both sides in one run, on the disk of this folder (or of
// --dir=PATH). --quick: a tenth of the sizes, fewer rounds. Names of parts (appends, loops, reads,
// memory, streams, postgres) run only those. Prints Markdown; results/ keeps it.

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { FactstrMemoryStore, FactstrSqliteStore } from '../index.js'
import { batches, event, itemsOf } from './events.mjs'
import { contextOf, decide, wandering } from './loops.mjs'
import {
  fsyncLatency,
  line,
  median,
  now,
  number,
  percentile,
  rate as rateFor,
  report,
  reportVersus,
  rows,
  versus as versusIn
} from './measure.mjs'
import { postgres } from './postgres/part.mjs'
import { RawStore } from './raw.mjs'
import { streams } from './streams.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
const PARTS = ['reads', 'loops', 'appends', 'memory', 'streams', 'postgres']
const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, dir: { type: 'string', default: here } }
})
const unknown = positionals.find((part) => !PARTS.includes(part))
if (unknown !== undefined) {
  console.error(`There is no part ${unknown}; there are ${PARTS.join(', ')}.`)
  process.exit(1)
}
const wanted = (part) => positionals.length === 0 || positionals.includes(part)
const scale = args.quick ? 10 : 1
const rounds = args.quick ? 2 : 3
const seconds = args.quick ? 0.3 : 1
const sizes = [0, 10_000, 100_000, 1_000_000].map((size) => size / scale)
const largest = sizes.at(-1)

const rate = (work) => rateFor(work, seconds)
const versus = (ours, theirs) => versusIn(ours, theirs, { rounds, seconds })

const folder = fs.mkdtempSync(join(args.dir, 'bench-'))

function machine() {
  const compiler = execFileSync('rustc', ['--version'], { encoding: 'utf8' }).trim()
  return [
    `${cpus().length} × ${cpus()[0].model}, ${number(totalmem() / 2 ** 30)} GiB`,
    `${process.platform} ${release()}, Node.js ${process.version}, ${compiler}`,
    `fsync of 4 KiB: ${fsyncLatency(folder)}`
  ]
}

/** Batches of 100 from nothing to `size`, 64 in flight; returns events per second until closed. */
async function fill(open, append, size) {
  const start = now()
  const store = await open()
  let inFlight = []
  for (const batch of batches(size, itemsOf(size))) {
    inFlight.push(append(store, batch))
    if (inFlight.length === 64) {
      await Promise.all(inFlight)
      inFlight = []
    }
  }
  await Promise.all(inFlight)
  await store.close()
  return size / (now() - start)
}

/** Both stores at one size; closed means index written and log checkpointed. */
async function load(size) {
  const ourPath = join(folder, `ours-${size}.db`)
  const rawPath = join(folder, `raw-${size}.db`)
  const ours = await fill(
    () => FactstrSqliteStore.open(ourPath),
    (store, batch) => store.append(batch),
    size
  )
  const theirs = await fill(
    () => new RawStore(rawPath),
    (store, batch) => store.appendGrouped(batch),
    size
  )
  return { ourPath, rawPath, ours, theirs }
}

async function appends({ ourPath, rawPath }, size) {
  const ours = await FactstrSqliteStore.open(ourPath)
  const raw = new RawStore(rawPath)
  const items = itemsOf(size)
  let n = size
  const flight = async (append) => {
    let ran = 0
    const lane = async () => {
      for (let turn = 0; turn < 20; turn++, ran++) await append([event(n++, items)])
    }
    await Promise.all(Array.from({ length: 64 }, lane))
    return ran
  }
  reportVersus(
    `64 appends in flight, ${number(size)} stored`,
    await versus(
      () => flight((events) => ours.append(events)),
      () => flight((events) => raw.appendGrouped(events))
    ),
    0.5
  )
  reportVersus(
    `awaited single appends, ${number(size)} stored`,
    await versus(
      async () => void (await ours.append([event(n++, items)])),
      () => void raw.append([event(n++, items)])
    ),
    0.8
  )
  await ours.close()
  raw.close()
}

async function loops({ ourPath, rawPath }, size) {
  const ours = await FactstrSqliteStore.open(ourPath)
  const raw = new RawStore(rawPath, { index: true })
  const items = itemsOf(size)
  const [ourItem, rawItem] = [wandering(items), wandering(items)]
  let n = size
  const alone = await versus(
    async () => void (await decide(ours, ourItem(), n++, items)),
    () => {
      const item = rawItem()
      const facts = raw.read(item)
      const next = event(n, items)
      next.payload.item_id = `made-${n++}`
      raw.appendIf([next], item, facts.at(-1)?.sequence_number ?? null)
    }
  )
  reportVersus(`read, decide, appendIf, one caller, ${number(size)} stored`, alone, 0.7)

  const lanes = async (step) => {
    let committed = 0
    const lane = async (which) => {
      for (let turn = 0; turn < 20; turn++) if (await step(which)) committed++
    }
    await Promise.all(Array.from({ length: 64 }, (_, which) => lane(which)))
    return committed
  }
  const distinct = []
  const hot = []
  let cursors = new Map()
  let hotRound = 0
  for (let round = 0; round < rounds; round++) {
    distinct.push(await rate(() => lanes(() => decide(ours, ourItem(), n++, items))))
    // All on one context, which each reads on from its cursor.
    hotRound++
    cursors = new Map()
    const hotContext = contextOf(`hot-${size}-${hotRound}`)
    hot.push(
      await rate(() =>
        lanes(async (which) => {
          const { current_context_version: version } = await ours.query({
            ...hotContext,
            min_sequence_number: cursors.get(which)
          })
          const next = event(n++, items)
          next.payload.item_id = `hot-${size}-${hotRound}`
          const { append_result: done, conflict } = await ours.appendIf([next], hotContext, version)
          cursors.set(which, done?.last_sequence_number ?? version ?? undefined)
          return conflict === null
        })
      )
    )
  }
  const committed = median(distinct)
  report(`64 such loops on distinct contexts, ${number(size)} stored`, {
    ours: `${number(committed)}/s`,
    target: '≥ 20,000/s',
    met: committed >= 20_000
  })
  const share = median(hot) / alone.ours
  report(`64 loops on one hot context, ${number(size)} stored`, {
    ours: `${number(median(hot))}/s`,
    theirs: `alone ${number(alone.ours)}/s`,
    ratio: share,
    target: '≥ 0.25 of alone',
    met: share >= 0.25
  })
  await ours.close()
  raw.close()
  return alone.ours
}

async function latency(what, target, work) {
  const times = []
  for (let n = 0; n < 500; n++) await work(n)
  for (let n = 0; n < 5000 / scale; n++) {
    const start = performance.now()
    await work(n)
    times.push((performance.now() - start) * 1000)
  }
  const p50 = median(times)
  report(what, {
    ours: `p50 ${number(p50)} µs, p99 ${number(percentile(times, 0.99))} µs`,
    target: `p50 < ${target} µs`,
    met: p50 < target
  })
}

async function reads(path, size) {
  const opening = []
  for (let round = 0; round < rounds; round++) {
    const start = performance.now()
    const store = await FactstrSqliteStore.open(path)
    await store.query(contextOf('item-7'))
    opening.push(performance.now() - start)
    await store.close()
  }
  const opened = median(opening)
  report(`open to the first answer, ${number(size)} stored`, {
    ours: `${number(opened)} ms`,
    target: '< 50 ms',
    met: opened < 50
  })

  const store = await FactstrSqliteStore.open(path)
  const items = itemsOf(size)
  const next = wandering(items)
  await latency('query of about 10 events by one field', 100, () => store.query(contextOf(next())))
  await latency('query by two fields that match 100 and a tenth', 200, (n) =>
    store.query({
      filters: [{ payload_predicates: [{ batch_id: (n * 37) % (size / 100), decade: 3 }] }]
    })
  )

  globalThis.gc?.()
  const before = process.memoryUsage().rss
  let peak = before
  let count = 0
  const start = now()
  for await (const { payload } of store.read()) {
    if (payload !== undefined && ++count % 20_000 === 0) {
      peak = Math.max(peak, process.memoryUsage().rss)
    }
  }
  const perSecond = count / (now() - start)
  report(`read() of ${number(count)} events`, {
    ours: `${number(perSecond)}/s`,
    target: '≥ 400,000/s',
    met: perSecond >= 400_000
  })
  const grown = (peak - before) / 1e6
  report('resident memory that it took', {
    ours: `${number(Math.max(grown, 0))} MB`,
    target: '< 100 MB',
    met: grown < 100
  })
  await store.close()
}

async function memory() {
  const found = []
  for (const size of sizes.slice(1)) {
    const store = new FactstrMemoryStore()
    const items = itemsOf(size)
    for (const batch of batches(size, items)) await store.append(batch)
    const next = wandering(items)
    let n = size
    const results = []
    for (let round = 0; round < rounds; round++) {
      results.push(await rate(async () => void (await decide(store, next(), n++, items))))
    }
    found.push(median(results))
    report(`memory store: read, decide, appendIf, ${number(size)} stored`, {
      ours: `${number(median(results))}/s`,
      target: '≥ 50,000/s',
      met: median(results) >= 50_000
    })
    await store.close()
  }
}

function disk(path, size) {
  let payloads = 0
  for (const batch of batches(size, itemsOf(size))) {
    for (const { payload } of batch) payloads += Buffer.byteLength(JSON.stringify(payload))
  }
  const ratio = fs.statSync(path).size / payloads
  report(`bytes on disk per byte of payload, ${number(size)} stored`, {
    ours: `${number(fs.statSync(path).size / 1e6)} MB`,
    theirs: `payloads ${number(payloads / 1e6)} MB`,
    ratio,
    target: '≤ 2.5',
    met: ratio <= 2.5
  })
}

async function onFilledStores() {
  const stores = new Map()
  for (const size of sizes) stores.set(size, await load(size))
  reportVersus(
    `batches of 100 to ${number(largest)} events, until closed`,
    stores.get(largest),
    0.5
  )
  disk(stores.get(largest).ourPath, largest)
  if (wanted('reads')) await reads(stores.get(largest).ourPath, largest)
  if (wanted('loops')) {
    const alone = new Map()
    for (const size of sizes.slice(1)) alone.set(size, await loops(stores.get(size), size))
    const flat = alone.get(largest) / alone.get(sizes[1])
    report('one caller: rate at the largest store to the smallest', {
      ours: '',
      ratio: flat,
      target: '≥ 0.8',
      met: flat >= 0.8
    })
  }
  if (wanted('appends')) for (const size of sizes) await appends(stores.get(size), size)
}

try {
  const header = machine()
  console.log(header.join('\n'))
  console.log(line({ what: 'what', ours: 'factstr', theirs: 'raw SQL', ratio: 'ratio' }))
  if (['reads', 'loops', 'appends'].some(wanted)) await onFilledStores()
  if (wanted('memory')) await memory()
  if (wanted('streams')) await streams(folder, largest, { rounds, seconds })
  if (wanted('postgres')) {
    header.push(
      ...(await postgres(sizes.slice(1), { rounds, seconds, patience: args.quick ? 3 : 60 }))
    )
  }

  fs.mkdirSync(join(here, 'results'), { recursive: true })
  const table = [
    ...header.map((each) => `- ${each}`),
    '',
    '| what | factstr | raw SQL | ratio | target | met |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows.map(line)
  ]
  fs.writeFileSync(join(here, 'results', 'latest.md'), `${table.join('\n')}\n`)
  fs.writeFileSync(join(here, 'results', 'latest.json'), JSON.stringify({ header, rows }, null, 2))
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
