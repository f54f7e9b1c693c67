// The crates factstr-memory, factstr-sqlite and factstr-postgres 0.5.2: what came before. They run in a
// program of their own, benchmarks/crates, which is built when a side is opened; it times itself.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import pg from 'pg'

import { event, growing, unrelated } from '../events.mjs'
import { decision } from '../loops.mjs'
import { now } from '../measure.mjs'

const VERSION = '0.5.2'
const folder = fileURLToPath(new URL('../crates', import.meta.url))

/** What is appended here, unless told, and what stores are filled with have different numbers. */
const FRESH = 1e8
/** What a `cargo build` that finds all done stays below. */
const NOTHING_TO_BUILD_MS = 1500
/** A step that was begun is let end. */
const CLOSING_MS = 12_000

/** Its tables have the same names as ours. */
const SCHEMA = 'factstr_crate'

/**
 * What is measured, and with how many callers at most: with more of them the steps that look at the whole log, or
 * wait for one connection, take minutes.
 */
const MEASURES = { append: 64, loop: 1, query: 1, speedrun: 1 }

export const sides = [
  {
    name: `factstr-memory ${VERSION}`,
    kind: 'peer',
    store: 'memory',
    measures: MEASURES,
    about:
      'a list behind a lock: each query and each condition looks at every event; a condition is checked and its events are appended under two locks, so two callers at once may both commit where one has to be refused; timed in its own process, a thread per caller',
    open: () => CratesSide.open(['memory'])
  },
  {
    name: `factstr-sqlite ${VERSION}`,
    kind: 'peer',
    store: 'sqlite',
    measures: MEASURES,
    about:
      "journal_mode WAL and synchronous FULL, as the crate sets them, four connections, and SQLite built with this repository's flags: as durable as ours; without an index on payloads, so each query and each condition reads and parses every event, or those of the types that are asked for; timed in its own process, a thread per caller",
    open: ({ path }) => CratesSide.open(['sqlite', path])
  },
  {
    name: `factstr-postgres ${VERSION}`,
    kind: 'peer',
    store: 'postgres',
    measures: MEASURES,
    tables: `relnamespace = 'factstr_crate'::regnamespace`,
    about:
      'synchronous_commit as the server has it; one connection, which does one thing after the other, so that callers queue; a GIN index on whole payloads, but once its statement is prepared the version of a context, max(sequence_number), is looked for from the end of the log, so that the oldest contexts cost most; timed in its own process, a thread per caller',
    async open({ url }) {
      await createSchema(url, SCHEMA)
      return CratesSide.open(['postgres', withSchema(url, SCHEMA)])
    }
  }
]

async function createSchema(connectionString, name) {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    await client.query(`CREATE SCHEMA IF NOT EXISTS ${client.escapeIdentifier(name)}`)
  } finally {
    await client.end()
  }
}

/** The crate's tables are wherever the search path says. */
function withSchema(url, name) {
  const own = new URL(url)
  own.searchParams.append('options', `-c search_path=${name}`)
  return own.href
}

/** What `measure` can be asked for, as the program calls it. */
const COMMANDS = {
  append: ({ callers, seconds, batch = 1 }, fresh) => ({ callers, seconds, batch, fresh }),
  loop: ({ callers, seconds, items, start = 0 }, fresh) => ({
    ...{ callers, seconds, items, start, fresh }
  }),
  query: ({ callers, seconds, items, start = 0 }) => ({ callers, seconds, items, start }),
  fill: ({ from, to, deadline, deadlineSeconds = deadline - now() }) => ({
    ...{ from, to, deadlineSeconds: Math.max(0, deadlineSeconds) }
  }),
  speedrun: ({ seconds }) => ({ seconds })
}

class CratesSide {
  #program
  #fresh = FRESH

  static async open(args) {
    const side = new CratesSide()
    side.#program = await Program.start(await build(), args)
    try {
      await side.#check()
    } catch (error) {
      await side.close()
      throw error
    }
    return side
  }

  /**
   * `append` and `loop` take `{ callers, seconds }`, the first also `batch` (1), the second `items`;
   * so does `query`. Both take `start`, the item they start at. `fresh`, the first number of an event, goes on from
   * what this side was asked for before unless it is told. `fill` takes `{ from, to }` and a `deadline` in seconds of
   * `performance.now() / 1000`; the answer's `done` tells whether it came to the end.
   * `speedrun` takes `{ seconds }` and counts operations.
   */
  async measure(work, options = {}) {
    if (!Object.hasOwn(COMMANDS, work)) throw new Error(`n/a: ${work}`)
    const { fresh = this.#fresh } = options
    const answer = await this.#program.ask({ command: work, ...COMMANDS[work](options, fresh) })
    if (answer.next !== undefined) this.#fresh = Math.max(this.#fresh, answer.next)
    const { p50, p90, p99 } = answer.latencies
    return { ...answer, latency: { 0.5: p50, 0.9: p90, 0.99: p99 } }
  }

  /** Both languages have to make the same bytes of an event. */
  async #check() {
    for (const first of [0, FRESH]) {
      const [count, items] = [2000, 200]
      const theirs = await this.#program.ask({ command: 'check', first, count, items })
      const part = growing({ from: first, to: first + count })
      const ours = {
        event: (n) => event(n, items),
        growing: part,
        unrelated,
        decision: (n) => decision({ length: n % 13 }, n, items)
      }
      for (const [kind, factAt] of Object.entries(ours)) {
        if (theirs[kind] !== hash(first, count, factAt)) {
          throw new Error(
            `factstr-crates makes other events than Node.js: ${kind} from ${first} on`
          )
        }
      }
    }
  }

  close() {
    return this.#program.end()
  }
}

function hash(first, count, factAt) {
  const hashing = createHash('sha256')
  for (let n = first; n < first + count; n++) hashing.update(`${JSON.stringify(factAt(n))}\n`)
  return hashing.digest('hex')
}

let building

/** Resolves to the path of the program. All sides have one program, which is built once. */
function build() {
  building ??= buildProgram()
  return building
}

async function buildProgram() {
  const cargo = spawn(
    'cargo',
    [
      ...['build', '--release', '--locked', '--manifest-path', `${folder}/Cargo.toml`],
      ...['--target-dir', `${folder}/target`, '--message-format', 'json-render-diagnostics']
    ],
    // Its place decides which settings of cargo hold: those of this repository.
    { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] }
  )
  const telling = setTimeout(
    () => console.error(`  … the crates of factstr ${VERSION} are built, which takes minutes once`),
    NOTHING_TO_BUILD_MS
  )
  const said = lastLines(cargo.stderr)
  let executable
  const reading = (async () => {
    for await (const line of createInterface({ input: cargo.stdout })) {
      executable = executableOf(line) ?? executable
    }
  })()
  try {
    const [code, signal] = await once(cargo, 'close')
    await reading
    if (code === 0 && executable) return executable
    throw new Error(`cargo failed (${signal ?? `code ${code}`})${said.first('error')}`)
  } catch (error) {
    if (error.code === 'ENOENT') throw new Error('cargo is not installed', { cause: error })
    throw error
  } finally {
    clearTimeout(telling)
  }
}

function executableOf(line) {
  if (!line.startsWith('{')) return undefined
  const { reason, target, executable } = JSON.parse(line)
  if (reason !== 'compiler-artifact' || target.name !== 'factstr-crates') return undefined
  return executable
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

/** The running program, which answers one command at a time. */
class Program {
  #child
  #said
  #ended
  #waiting = []
  #failure

  static async start(path, args) {
    const program = new Program()
    const child = spawn(path, args, { stdio: ['pipe', 'pipe', 'pipe'] })
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
      this.#waiting.shift()?.resolve(JSON.parse(line))
    })
    let reason
    try {
      const [code, signal] = await once(child, 'close')
      reason = `ended (${signal ?? `code ${code}`})${this.#said.first('thread')}`
    } catch (error) {
      reason = `could not be started: ${error.message}`
    }
    process.removeListener('exit', kill)
    this.#failure = new Error(`factstr-crates ${reason}`)
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
