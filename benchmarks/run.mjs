// Measures this package beside what else one could use, through public APIs, in turns, on the disk of this
// folder (or of --dir=PATH). Prints Markdown as it goes; results/ keeps it, and figures as JSON.
//
// node benchmarks/run.mjs [W1 … W12] [memory sqlite postgres] [--quick] [--largest=N] [--seconds=S]

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { fsyncLatency } from './measure.mjs'
import { openPlaces } from './places.mjs'
import { Report, number } from './report.mjs'
import { SIDES, closeSides, openSides } from './sides/index.mjs'
import { openOurs } from './sides/ours.mjs'
import { W1, W2, W3 } from './workloads/appends.mjs'
import { W12 } from './workloads/boundary.mjs'
import { W4, flatness } from './workloads/loops.mjs'
import { W9 } from './workloads/processes.mjs'
import { W10, W5, W6, opening } from './workloads/reads.mjs'
import { W11 } from './workloads/speedrun.mjs'
import { W7, W8 } from './workloads/streams.mjs'
import { fillAll } from './works.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
const LABELS = { memory: 'memory', sqlite: 'SQLite', postgres: 'PostgreSQL' }
const WORKLOADS = Array.from({ length: 12 }, (_, n) => `W${n + 1}`)

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    dir: { type: 'string', default: here },
    largest: { type: 'string', default: '1000000' },
    seconds: { type: 'string', default: '1' }
  }
})
const known = [...WORKLOADS, ...Object.keys(LABELS)]
const unknown = positionals.find((each) => !known.includes(each))
if (unknown !== undefined) {
  console.error(`There is no ${unknown}; there are ${known.join(', ')}.`)
  process.exit(1)
}
const chosen = (all) => {
  const some = positionals.filter((each) => all.includes(each))
  return some.length > 0 ? some : all
}
const stores = chosen(Object.keys(LABELS))
const workloads = chosen(WORKLOADS)
const wanted = (...some) => some.some((each) => workloads.includes(each))

const largest = Number(args.largest)
if (!Number.isInteger(largest) || largest < 1000) {
  console.error('--largest: a whole number of at least 1000.')
  process.exit(1)
}
const turn = Number(args.seconds)
if (!(turn >= 0.1)) {
  console.error('--seconds: how long a turn is, at least 0.1.')
  process.exit(1)
}
const scale = args.quick ? 10 : 1
const settings = {
  rounds: args.quick ? 2 : 3,
  seconds: args.quick ? 0.3 : turn,
  patience: args.quick ? 5 : 60,
  sizes: [10_000, 100_000, 1_000_000, 10_000_000]
    .filter((size) => size < largest)
    .concat(largest)
    .map((size) => size / scale)
}

const report = new Report()

function about(folder) {
  const compiler = execFileSync('rustc', ['--version'], { encoding: 'utf8' }).trim()
  report.say(`${cpus().length} × ${cpus()[0].model}, ${number(totalmem() / 2 ** 30)} GiB`)
  report.say(`${process.platform} ${release()}, Node.js ${process.version}, ${compiler}`)
  report.say(`medians of ${settings.rounds} turns of ${settings.seconds} s`)
  tellFsync('of the folder of SQLite files, at the start', () => fsyncLatency(folder))
  for (const store of stores) {
    for (const side of SIDES) {
      if (side.store === store) report.say(`${LABELS[store]}: **${side.name}**: ${side.about}`)
    }
  }
}

function tellFsync(when, latency) {
  const found = latency()
  if (!found) return
  report.say(`fsync of 4 KiB ${when}: p50 ${number(found.p50)} µs, p99 ${number(found.p99)} µs`)
}

/** All that is measured on one kind of store. */
async function measure(places) {
  const { store } = places
  const bench = {
    ...settings,
    report,
    store,
    label: LABELS[store],
    diskOf: places.diskOf,
    freshPlace: () => places.make(),
    openOurs: (place) => openOurs(store, place),
    openFresh: async () => openOurs(store, await places.make())
  }
  if (wanted('W1', 'W2', 'W3', 'W11')) await onEmptyStores(bench)
  if (wanted('W1', 'W2', 'W4', 'W5', 'W6', 'W9', 'W10')) await onFilledStores(bench)
  if (wanted('W7')) await W7(bench)
  if (wanted('W8')) await W8(bench)
  if (wanted('W12')) await W12(bench)
}

async function onEmptyStores(bench) {
  const sides = await openSides(bench.store, await bench.freshPlace())
  const empty = { ...bench, sides }
  if (wanted('W1')) await W1(empty, 0)
  if (wanted('W2')) await W2(empty, 0)
  if (wanted('W3')) await W3(empty, 0)
  if (wanted('W11')) await W11(empty)
  await closeSides(sides)
}

async function onFilledStores(bench) {
  const { sizes } = bench
  const place = await bench.freshPlace()
  const sides = await openSides(bench.store, place)
  const filled = { ...bench, sides }
  const took = {}
  let from = 0
  for (const to of sizes) {
    const seconds = await fillAll(filled, { from, to })
    for (const [name, each] of Object.entries(seconds)) took[name] = (took[name] ?? 0) + each
    await place.settle?.()
    if (to === sizes.at(-1)) {
      if (wanted('W10')) await W10(filled, to, took)
      if (wanted('W6')) await W6(filled, to)
    }
    if (wanted('W5')) await W5(filled, to)
    if (wanted('W4')) await W4(filled, to)
    from = to
  }
  if (wanted('W4') && sizes.length > 1) await compareWithSmall(filled)
  if (wanted('W9') && bench.store !== 'memory') await W9(filled, from)
  if (wanted('W1')) await W1(filled, from)
  if (wanted('W2')) await W2(filled, from)
  await closeSides(sides)
  if (wanted('W10') && bench.store !== 'memory') {
    await opening(filled, () => bench.openOurs(sides[0].place), from)
  }
}

async function compareWithSmall(bench) {
  const place = await bench.freshPlace()
  const store = await bench.openOurs(place)
  const side = { name: 'a small store', kind: 'ours', append: (facts) => store.append(facts) }
  await fillAll({ ...bench, sides: [side] }, { from: 0, to: bench.sizes[0] })
  await place.settle?.()
  await flatness(bench, store)
  await store.close()
}

const folder = fs.mkdtempSync(join(args.dir, 'bench-'))
try {
  about(folder)
  for (const store of stores) {
    const places = await openPlaces(store, folder)
    try {
      for (const each of places.header) report.say(each)
      tellFsync(`where the ${LABELS[store]} store is, before`, places.fsync)
      await measure(places)
      tellFsync(`where the ${LABELS[store]} store is, after`, places.fsync)
    } finally {
      await places.close()
    }
  }
  console.log(`\n${report.targetsMarkdown().join('\n')}`)
  report.save(join(here, 'results'))
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
