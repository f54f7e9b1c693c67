// W12: what Node.js costs. The same work by way of the package and by a program in Rust on the crate beneath it, in
// turns; then what both allocate.

import { fileURLToPath } from 'node:url'

import { interleaved } from '../measure.mjs'
import { Program, buildProgram, checkEvents } from '../program.mjs'
import { duration, number } from '../report.mjs'

const NODE_SIDE = fileURLToPath(new URL('../boundary.mjs', import.meta.url))

/** A young generation in which nothing is collected while it is counted, in MB. */
const YOUNG = 1024

/** What is done, and what one operation of it is; reads come before the log grows. */
const WORKS = [
  { what: 'query of ten events', work: 'query' },
  { what: 'one event of a read of all', work: 'read', isPart: true },
  { what: 'read, decide, appendIf', work: 'decide' },
  { what: 'append of one event, awaited', work: 'append' },
  { what: '64 of them in flight', work: 'append', callers: 64 },
  { what: 'append of one, until a live stream has it', work: 'deliver' },
  { what: 'append of a batch of 100', work: 'append', batch: 100 }
]

/** As many steps as do not fill the young generation; `events` of each step, unless the step counts them itself. */
const COUNTED = [
  { what: 'query of ten', work: 'query', steps: 3000, events: 10 },
  { what: 'read of all', work: 'read', steps: 1, events: 1 },
  { what: 'appendIf of one, its condition included', work: 'decide', steps: 5000, events: 1 },
  { what: 'append of one, awaited', work: 'append', steps: 10_000, events: 1 },
  { what: 'append of one and its delivery', work: 'deliver', steps: 5000, events: 1 },
  { what: 'append of a batch of 100', work: 'append', batch: 100, steps: 300, events: 100 }
]

/** Both sides on stores of their own, filled alike. */
async function openSides(bench, size) {
  // What the crate needs changes with this repository: the lock file follows.
  const rust = await buildProgram('core', 'the crate and a program on it', { isLocked: false })
  const sides = {}
  try {
    for (const [name, path, args] of [
      ['rust', rust, []],
      ['node', process.execPath, [NODE_SIDE]]
    ]) {
      const place = await bench.freshPlace()
      sides[name] = await openSide(bench.store, place, path, args)
      console.error(`  … ${name === 'rust' ? 'Rust' : 'Node.js'} fills a store of its own`)
      await sides[name].ask({ command: 'fill', to: size })
      await place.settle?.()
    }
    await checkEvents(sides.rust, [0, 1e8])
    return sides
  } catch (error) {
    await closeAll(sides)
    throw error
  }
}

async function openSide(kind, { path: file, url }, path, args) {
  // The place may have a password, which arguments would show to everybody.
  const place = JSON.stringify({ kind, path: file, url })
  return Program.start(path, args, { FACTSTR_BENCH_PLACE: place })
}

async function closeAll(sides) {
  for (const side of Object.values(sides)) await side.end()
}

const HEADS = [
  ...['', 'Rust, per second', 'Node.js, per second', "Rust's time of Node.js's", 'p50 Rust'],
  ...['p50 Node.js', 'CPU Rust', 'CPU Node.js', 'switches Rust', 'switches Node.js']
]

/** Of one operation: time on processors in all threads, and how often a thread was put aside. */
function perOperation({ usage, count }) {
  const voluntary = usage.voluntary / count
  const involuntary = usage.involuntary / count
  const few = (value) => (value < 0.001 ? '0' : value.toFixed(value < 0.1 ? 3 : 2))
  return {
    cpu: duration(usage.cpu / count),
    switches: `${few(voluntary)} + ${few(involuntary)}`
  }
}

export async function W12(bench) {
  const { report, label, store, rounds, seconds, sizes } = bench
  const size = Math.min(sizes.at(-1), 100_000)
  const items = size / 10
  const sides = await openSides(bench, size)
  const lines = []
  const figures = []
  for (const { what, isPart, ...options } of WORKS) {
    const ask = (side) => (turn) => side.ask({ command: 'measure', ...options, items, ...turn })
    const found = await interleaved(
      { rust: ask(sides.rust), node: ask(sides.node) },
      { rounds, seconds }
    )
    const { rust, node } = found
    const [inRust, inNode] = [perOperation(rust), perOperation(node)]
    const waits = !isPart && (options.callers ?? 1) === 1
    lines.push([
      ...[what, number(rust.rate), number(node.rate), share(node.rate / rust.rate)],
      ...[rust, node].map(({ latency }) => (waits ? duration(latency[0.5]) : '')),
      ...[inRust.cpu, inNode.cpu, inRust.switches, inNode.switches]
    ])
    figures.push({ what, ...found })
  }
  report.table(
    `W12 ${label}: what Node.js costs, ${number(size)} stored (switches of context: voluntary + involuntary)`,
    { workload: 'W12', store, size },
    HEADS,
    lines,
    figures
  )
  await countAll(bench, sides, size)
  await closeAll(sides)
}

const share = (value) => `${Math.round(value * 100)} %`

/** What both ask of their allocators: V8's in a process whose heap is not collected meanwhile. */
async function countAll({ report, label, store, freshPlace }, { rust }, size) {
  const flags = [`--min-semi-space-size=${YOUNG}`, `--max-semi-space-size=${YOUNG}`]
  const args = ['--expose-gc', ...flags, NODE_SIDE]
  const node = await openSide(store, await freshPlace(), process.execPath, args)
  try {
    await node.ask({ command: 'fill', to: size })
    const lines = []
    const figures = []
    for (const { what, events, ...options } of COUNTED) {
      const command = { command: 'count', ...options, items: size / 10 }
      const { count, allocations, bytes } = await rust.ask(command)
      const { count: counted, heap } = await node.ask(command)
      const per = (value, of) => value / (of * events)
      const each = {
        allocations: per(allocations, count),
        bytes: per(bytes, count),
        heap: per(heap, counted)
      }
      lines.push([
        ...[what, each.allocations.toFixed(1), number(Math.round(each.bytes))],
        number(Math.round(each.heap))
      ])
      figures.push({ what, ...each })
    }
    report.table(
      `W12 ${label}: allocations per event, ${number(size)} stored`,
      { workload: 'W12-allocations', store, size },
      ['', 'Rust: allocations', 'Rust: bytes', "Node.js: bytes of V8's heap"],
      lines,
      figures
    )
  } finally {
    await node.end()
  }
}
