// What profilers have left: `{ threads, groups, entries, samples }`; the first three are pairs of a name and its share,
// largest first, and V8 knows no threads.

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { createInterface } from 'node:readline'

class Shares {
  #threads = new Map()
  #groups = new Map()
  #entries = new Map()
  #all = 0

  add(thread, group, entry, weight) {
    this.#all += weight
    for (const [map, key] of [
      [this.#threads, thread],
      [this.#groups, group],
      [this.#entries, `${entry}  [${group}]`]
    ]) {
      map.set(key, (map.get(key) ?? 0) + weight)
    }
  }

  told(samples) {
    const shares = (map) =>
      [...map].map(([name, sum]) => [name, sum / this.#all]).sort((a, b) => b[1] - a[1])
    const [threads, groups, entries] = [this.#threads, this.#groups, this.#entries].map(shares)
    return { threads, groups, entries, samples }
  }
}

/** Whose JavaScript a file is. */
function ownerOf(url) {
  if (url.startsWith('node:') || url.includes('node:')) return 'JavaScript of Node.js'
  if (url.includes('/benchmarks/')) return 'JavaScript of the benchmark'
  return 'JavaScript of the package'
}

const fileOf = (url) => url.split(/[/\\]/).at(-1)

/**
 * Self times of V8's profiler. Builtins such as `JSON.parse` are told as part of their caller where V8 keeps no frame
 * of theirs.
 */
export function readCpuProfile(path) {
  const { nodes, samples, timeDeltas } = JSON.parse(fs.readFileSync(path, 'utf8'))
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  const shares = new Shares()
  let counted = 0
  for (const [at, id] of samples.entries()) {
    const { functionName: name, url, lineNumber } = frames.get(id)
    // What the event loop waits for is no work.
    if (name === '(idle)') continue
    counted++
    const group =
      name === '(garbage collector)'
        ? 'garbage collection'
        : name.startsWith('(')
          ? 'native code without a frame: libuv, N-API, the kernel'
          : url === ''
            ? 'builtins and functions of the addon'
            : ownerOf(url)
    const where = url === '' ? '' : ` ${fileOf(url)}:${lineNumber + 1}`
    // The addon's functions share one entry into it, so V8 calls each by the name of another.
    const told = url === '' && name.startsWith('Native') ? 'a function of the addon' : name
    shares.add('', group, `${told || '(anonymous)'}${where}`, Math.max(timeDeltas[at], 0))
  }
  return shares.told(counted)
}

const IS_JSON = /Json(Parser|Parse|Stringif)/
const IS_COLLECTION = /Scaveng|Mark(Compact|ing)|Sweep|Evacuat|CollectGarbage|GCTracer|cppgc/

const isAddon = (library) => library.includes('.node')

/** What V8 compiled, now or when it was built. */
const isJavaScript = ({ symbol, library }) =>
  library.includes('perf-') || symbol.startsWith('Builtins_')

const IS_BOUNDARY = /^napi_|^v8impl::|node_napi_env__/

/** The innermost frame says whose code it was, but for what V8 does on behalf of JSON and of its collector. */
function groupOf(frames) {
  const [{ symbol, library }] = frames
  if (library.includes('kernel') || library === '[unknown]' || library.includes('vdso')) {
    return 'the kernel'
  }
  if (isAddon(library)) {
    if (symbol === '[unknown]') return 'the addon'
    return /::|rust|^_R/.test(symbol) ? 'the addon: Rust' : 'the addon: SQLite and other C'
  }
  const named = frames.filter((each) => !isAddon(each.library))
  const caller = named.findIndex(isJavaScript)
  const native = caller < 0 ? named : named.slice(0, caller)
  if (named.some((each) => IS_COLLECTION.test(each.symbol))) return 'garbage collection'
  if (named.some((each) => IS_JSON.test(each.symbol))) return 'JSON.parse and JSON.stringify'
  if (native.some((each) => IS_BOUNDARY.test(each.symbol))) return 'N-API: values that cross over'
  if (library.includes('perf-')) {
    const [, url] = /(?:Function|Script|LazyCompile|JS):\S* (\S+?):\d/.exec(symbol) ?? []
    return url ? ownerOf(url) : "V8's builtins"
  }
  if (library.endsWith('/node')) return 'V8 and Node.js'
  return 'the C library: memory, locks'
}

/** Samples of `perf record -g`: blocks of a line about the thread, a line per frame, and an empty one. */
export async function readPerf(path) {
  const script = spawn('perf', ['script', '-i', path, '-F', 'comm,tid,ip,sym,dso'], {
    stdio: ['ignore', 'pipe', 'ignore']
  })
  const shares = new Shares()
  let samples = 0
  let thread
  let frames = []
  const take = () => {
    if (frames.length > 0) {
      samples++
      const [{ symbol }] = frames
      shares.add(thread, groupOf(frames), `${thread}: ${short(symbol)}`, 1)
    }
    thread = undefined
    frames = []
  }
  for await (const line of createInterface({ input: script.stdout })) {
    if (line.trim() === '') take()
    else if (thread === undefined) thread = line.trim().replace(/\s+\d+\s*$/, '')
    else {
      const [, symbol, library] = /^\s*[0-9a-f]+ (.*) \((.*)\)$/.exec(line) ?? []
      if (symbol !== undefined) frames.push({ symbol, library })
    }
  }
  take()
  return shares.told(samples)
}

/** Without folders and what tells instances of one function apart. */
function short(symbol) {
  const name = symbol.replace(/\S*\/(?=[^/]*:\d)/, '').replace(/::h[0-9a-f]{16}$/, '')
  return name.length > 90 ? `${name.slice(0, 89)}…` : name
}
