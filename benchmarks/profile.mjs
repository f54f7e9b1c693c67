// Where the time goes on the hot paths of a store: `npm run bench -- profile [PATH …] [STORE …]`.
//
// Runs each path for some seconds in a process of its own, as W12 does, and tells how often its threads waited, and what
// took the time: by V8's sampling profiler, which knows the functions of the event loop, and by `perf` where it is
// installed (Debian: `apt-get install linux-perf`), which sees all threads, native code and the kernel. `--seconds=5`,
// `--callers=N`, `--size=100000` events stored, `--top=12` lines each.
//
// An addon built by `CARGO_PROFILE_RELEASE_STRIP=none npm run build` has names; without them its share is one line.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { openPlaces } from './places.mjs'
import { readCpuProfile, readPerf } from './profiles.mjs'
import { Program } from './program.mjs'
import { number } from './report.mjs'

const SIDE = fileURLToPath(new URL('boundary.mjs', import.meta.url))

/** What is asked of benchmarks/boundary.mjs. Many callers, where one would spend the time waiting for the disk. */
const PATHS = {
  append: { work: 'append', callers: 64 },
  'append-if': { work: 'decide', callers: 64 },
  query: { work: 'query', callers: 1 },
  read: { work: 'read', callers: 1 },
  delivery: { work: 'deliver', callers: 1 }
}
const STORES = ['memory', 'sqlite', 'postgres']

/** Odd, so that it does not keep step with timers. */
const SAMPLES_PER_SECOND = 997

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '5' },
    callers: { type: 'string' },
    size: { type: 'string', default: '100000' },
    top: { type: 'string', default: '12' }
  }
})
const known = [...Object.keys(PATHS), ...STORES]
const unknown = positionals.find((each) => !known.includes(each))
if (unknown !== undefined) {
  console.error(`There is no ${unknown}; there are ${known.join(', ')}.`)
  process.exit(1)
}
const chosen = (all) => {
  const some = all.filter((each) => positionals.includes(each))
  return some.length > 0 ? some : all
}
const [seconds, size, top] = [args.seconds, args.size, args.top].map(Number)
if (!(seconds > 0 && size >= 1000 && top > 0)) {
  console.error('--seconds and --top: more than 0; --size: at least 1000.')
  process.exit(1)
}
const hasPerf = spawnSync('perf', ['--version'], { stdio: 'ignore' }).status === 0
if (!hasPerf) {
  console.error('perf is not installed: what native code and the kernel take is one line each.')
}

/** Profiles one path on a store that is filled anew, `within` a folder for what profilers leave. */
async function profile(path, places, within) {
  const place = await places.make()
  const { url, path: file } = place
  const env = {
    FACTSTR_BENCH_PLACE: JSON.stringify({ kind: places.store, path: file, url })
  }
  // V8 opens a log too, which has to be somewhere.
  const flags = hasPerf
    ? ['--perf-basic-prof', '--no-logfile-per-isolate', `--logfile=${join(within, 'v8.log')}`]
    : []
  const side = await Program.start(process.execPath, ['--expose-gc', ...flags, SIDE], env)
  try {
    await side.ask({ command: 'fill', to: size })
    await place.settle?.()
    const work = { ...PATHS[path], items: size / 10, command: 'measure' }
    if (args.callers) work.callers = Number(args.callers)
    await side.ask({ ...work, seconds: 1 })
    const cpuProfile = join(within, 'cpu.json')
    const before = switchesOf(side.pid)
    const { rate, count } = await side.ask({ ...work, seconds })
    const after = switchesOf(side.pid)
    await side.ask({ ...work, seconds, profile: cpuProfile })
    const callers = work.callers === 1 ? 'one caller' : `${work.callers} callers`
    console.log(
      `\n## ${path}, ${places.store}: ${callers}, ${number(size)} stored, ${number(rate)}/s`
    )
    tellSwitches(before, after, count)
    print('The event loop, by function', readCpuProfile(cpuProfile))
    if (hasPerf) print('All threads', await perf(side, { ...work, seconds }, within))
  } finally {
    await side.end()
    // Its name is where perf looks for it, whatever the folder for temporary files is.
    fs.rmSync(`/tmp/perf-${side.pid}.map`, { force: true })
  }
}

/** How often each thread has been put aside so far, by name; Linux tells it. */
function switchesOf(pid) {
  const folder = `/proc/${pid}/task`
  if (!fs.existsSync(folder)) return undefined
  const sums = {}
  for (const thread of fs.readdirSync(folder)) {
    let text
    try {
      text = fs.readFileSync(join(folder, thread, 'status'), 'utf8')
    } catch {
      // It has ended meanwhile.
      continue
    }
    const of = (field) => new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(text)[1]
    // Threads that Node.js started by itself have its name.
    const name = thread === `${pid}` ? 'the event loop' : of('Name')
    const sum = (sums[name] ??= [0, 0])
    sum[0] += Number(of('voluntary_ctxt_switches'))
    sum[1] += Number(of('nonvoluntary_ctxt_switches'))
  }
  return sums
}

/** A thread that waited has been woken: this is what wake-ups there are. */
function tellSwitches(before, after, count) {
  if (!before) return
  const told = Object.entries(after)
    .map(([name, sums]) => [name, sums.map((sum, at) => (sum - (before[name]?.[at] ?? 0)) / count)])
    .filter(([, sums]) => sums.some((each) => each >= 0.001))
    .map(([name, sums]) => `${name} ${sums.map((each) => each.toFixed(3)).join(' + ')}`)
  console.log(
    `\nSwitches of context per operation (waited + made room): ${told.join(', ') || 'none'}`
  )
}

/** Has `perf` look at the process while it works. */
async function perf(side, work, within) {
  const data = join(within, 'perf.data')
  // A clock of the kernel, because virtual machines often have no counters of their own.
  const recording = spawn(
    'perf',
    [
      ...['record', '-q', '-g', '-e', 'cpu-clock', '-F', `${SAMPLES_PER_SECOND}`],
      ...['-o', data, '-p', `${side.pid}`]
    ],
    { stdio: 'ignore' }
  )
  const recorded = once(recording, 'exit')
  await pause(300)
  await side.ask(work)
  recording.kill('SIGINT')
  await recorded
  return readPerf(data)
}

function print(title, { threads, groups, entries, samples }) {
  const percent = (share) => `${(share * 100).toFixed(1).padStart(5)} %`
  console.log(`\n### ${title} (${number(samples)} samples)\n`)
  for (const [name, share] of groups) {
    if (share >= 0.001) console.log(`${percent(share)}  ${name}`)
  }
  if (threads.length > 1) {
    const told = threads.filter(([, share]) => share >= 0.001)
    console.log(
      `\nBy thread: ${told.map(([name, share]) => `${name} ${percent(share).trim()}`).join(', ')}`
    )
  }
  console.log('')
  for (const [name, share] of entries.slice(0, top)) console.log(`${percent(share)}    ${name}`)
}

const folder = fs.mkdtempSync(join(tmpdir(), 'factstr-profile-'))
try {
  for (const store of chosen(STORES)) {
    const places = await openPlaces(store, folder)
    try {
      for (const path of chosen(Object.keys(PATHS))) await profile(path, places, folder)
    } finally {
      await places.close()
    }
  }
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
