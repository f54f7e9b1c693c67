// Programs in Rust that measure: built when they are first needed, and spoken to by lines of JSON.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { parse } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import { event, growing, unrelated } from './events.mjs'
import { decision } from './loops.mjs'

/** What a `cargo build` that finds all done stays below. */
const NOTHING_TO_BUILD_MS = 1500
/** A step that was begun is let end. */
const CLOSING_MS = 12_000

const builds = new Map()

/**
 * Resolves to the path of the program `factstr-<folder>`, or of another one that is in the same folder; they are built
 * once; `what` they are, for those who wait. `isLocked`: the lock file has to be right, and is not mended.
 */
export async function buildProgram(
  folder,
  what,
  { isLocked = true, name = `factstr-${folder}` } = {}
) {
  if (!builds.has(folder)) builds.set(folder, build(folder, what, isLocked))
  const programs = await builds.get(folder)
  if (!programs.has(name)) throw new Error(`cargo has built no ${name}`)
  return programs.get(name)
}

/** The paths of a folder's programs, by name. */

async function build(name, what, isLocked) {
  const folder = fileURLToPath(new URL(name, import.meta.url))
  const cargo = spawn(
    'cargo',
    [
      ...['build', '--release', ...(isLocked ? ['--locked'] : [])],
      ...['--manifest-path', `${folder}/Cargo.toml`],
      ...['--target-dir', `${folder}/target`, '--message-format', 'json-render-diagnostics']
    ],
    // Its place decides which settings of cargo hold: those of this repository.
    { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] }
  )
  const telling = setTimeout(
    () => console.error(`  … ${what} are built, which takes minutes once`),
    NOTHING_TO_BUILD_MS
  )
  const said = lastLines(cargo.stderr)
  const programs = new Map()
  const reading = (async () => {
    for await (const line of createInterface({ input: cargo.stdout })) {
      const { name: program, path } = programOf(line)
      if (path) programs.set(program, path)
    }
  })()
  try {
    const [code, signal] = await once(cargo, 'close')
    await reading
    if (code === 0) return programs
    throw new Error(`cargo failed (${signal ?? `code ${code}`})${said.first('error')}`)
  } catch (error) {
    if (error.code === 'ENOENT') throw new Error('cargo is not installed', { cause: error })
    throw error
  } finally {
    clearTimeout(telling)
  }
}

/** What a message of cargo's tells of a program that is ready. */
function programOf(line) {
  if (!line.startsWith('{')) return {}
  const { reason, target, executable } = JSON.parse(line)
  return reason === 'compiler-artifact' ? { name: target.name, path: executable } : {}
}

/** Keeps the end of what a process says. */
function lastLines(stream) {
  let kept = ''
  stream.setEncoding('utf8')
  stream.on('data', (text) => {
    kept = (kept + text).slice(-4000)
  })
  return {
    /** The first of these lines that starts like that, or else the last one, for the end of a message. */
    first(start) {
      const lines = kept.trim().split('\n')
      const line = lines.find((each) => each.startsWith(start)) ?? lines.at(-1)
      return line && `: ${line}`
    }
  }
}

/** Both languages have to make the same bytes of an event: of the numbers from each of `starts` on. */
export async function checkEvents(program, starts) {
  for (const first of starts) {
    const [count, items] = [2000, 200]
    const theirs = await program.ask({ command: 'check', first, count, items })
    const part = growing({ from: first, to: first + count })
    const ours = {
      event: (n) => event(n, items),
      growing: part,
      unrelated,
      decision: (n) => decision({ length: n % 13 }, n, items)
    }
    for (const [kind, factAt] of Object.entries(ours)) {
      if (theirs[kind] !== hash(first, count, factAt)) {
        throw new Error(`${program.name} makes other events than Node.js: ${kind} from ${first} on`)
      }
    }
  }
}

function hash(first, count, factAt) {
  const hashing = createHash('sha256')
  for (let n = first; n < first + count; n++) hashing.update(`${JSON.stringify(factAt(n))}\n`)
  return hashing.digest('hex')
}

/** The running program, which answers one command at a time. */
export class Program {
  #child
  #said
  #ended
  #waiting = []
  #failure

  /** `env`: variables besides those of this process. */
  static async start(path, args, env = {}) {
    const program = new Program()
    const child = spawn(path, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env }
    })
    program.name = parse(args.find((each) => each.endsWith('.mjs')) ?? path).name
    program.#child = child
    program.#said = lastLines(child.stderr)
    program.#ended = program.#watch()
    try {
      await program.#answer()
    } catch (error) {
      await program.end()
      throw error
    }
    return program
  }

  /** Resolves when the program has ended; whoever waits for an answer then is told why there is none. */
  async #watch() {
    const child = this.#child
    const kill = () => child.kill()
    process.once('exit', kill)
    // Writing to a program that has ended fails whatever waits for its answer.
    child.stdin.on('error', () => {})
    createInterface({ input: child.stdout }).on('line', (line) => {
      // A library may say something of its own.
      if (line.startsWith('{')) this.#waiting.shift()?.resolve(JSON.parse(line))
    })
    let reason
    try {
      const [code, signal] = await once(child, 'close')
      reason = `ended (${signal ?? `code ${code}`})${this.#said.first('thread')}`
    } catch (error) {
      reason = `could not be started: ${error.message}`
    }
    process.removeListener('exit', kill)
    this.#failure = new Error(`${this.name} ${reason}`)
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure)
  }

  async #answer() {
    if (this.#failure) throw this.#failure
    const { error, ...answer } = await new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
    })
    if (error !== undefined) throw new Error(error)
    return answer
  }

  get pid() {
    return this.#child.pid
  }

  ask(command) {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`)
    return this.#answer()
  }

  async end() {
    this.#child.stdin.end()
    const killing = setTimeout(() => this.#child.kill('SIGKILL'), CLOSING_MS)
    await this.#ended
    clearTimeout(killing)
  }
}
