// What is written in Rust, without Node.js: the crates factstr-memory, factstr-sqlite and factstr-postgres 0.5.2, which
// came before, the engines of UmaDB and tephra, and the crate beneath this package. They run in programs of their own,
// benchmarks/crates and benchmarks/core, which are built when a side is opened and time themselves by the same code.

import { readFileSync } from 'node:fs'

import pg from 'pg'

import { now } from '../measure.mjs'
import { Program, buildProgram, checkEvents } from '../program.mjs'

const VERSION = '0.5.2'

/** What is appended here, unless told, and what stores are filled with have different numbers. */
const FRESH = 1e8

/** Its tables have the same names as ours. */
const SCHEMA = 'factstr_crate'

/**
 * What is measured, and with how many callers at most: with more of them the steps that look at the whole log, or
 * wait for one connection, take minutes.
 */
const MEASURES = { append: 64, loop: 1, query: 1, speedrun: 1 }

/** Tags are indexed, and appends of several callers are committed in groups. */
const MEASURES_OF_DCB = { append: 64, loop: 64, query: 64, speedrun: 1 }
const IN_RUST = 'timed in its own process, a thread per caller'
const ABOUT_DCB = `each event has the one tag that is asked for (the speedrun: one or two) and no time; ${IN_RUST}`

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

/** The crate beneath this package, to be compared with what else is measured in Rust. */
const coreFor = (store, argumentsAt) => ({
  name: `factstr ${version} from Rust`,
  kind: 'core',
  store,
  measures: MEASURES_OF_DCB,
  about: `the crate that this package is made of, without Node.js; ${IN_RUST}`,
  open: (place) => CratesSide.open(argumentsAt(place), CORE)
})

/** The programs: where they are, what they are, and how they are built. */
const CRATES = ['crates', `the crates of factstr ${VERSION}, UmaDB and tephra`]
const CORE = [
  ...['core', 'the crate and programs on it'],
  { isLocked: false, name: 'factstr-callers' }
]

export const sides = [
  coreFor('memory', () => ['memory']),
  coreFor('sqlite', ({ path }) => ['sqlite', path]),
  {
    name: `factstr-memory ${VERSION}`,
    kind: 'peer',
    store: 'memory',
    isRust: true,
    measures: MEASURES,
    about: `a list behind a lock: each query and each condition looks at every event; a condition is checked and its events are appended under two locks, so two callers at once may both commit where one has to be refused; ${IN_RUST}`,
    open: () => CratesSide.open(['memory'])
  },
  {
    name: `factstr-sqlite ${VERSION}`,
    kind: 'peer',
    store: 'sqlite',
    isRust: true,
    measures: MEASURES,
    about: `journal_mode WAL and synchronous FULL, as the crate sets them, four connections, and SQLite built with this repository's flags: as durable as ours; without an index on payloads, so each query and each condition reads and parses every event, or those of the types that are asked for; ${IN_RUST}`,
    open: ({ path }) => CratesSide.open(['sqlite', path])
  },
  {
    name: 'umadb-core 0.7.8',
    kind: 'peer',
    store: 'sqlite',
    isRust: true,
    measures: MEASURES_OF_DCB,
    about: `the engine of UmaDB with the thread that writes for its server, and without the server: a file, fdatasync for each group; ${ABOUT_DCB}`,
    open: ({ path }) => CratesSide.open(['umadb', path])
  },
  {
    name: 'tephra 0.4.1',
    kind: 'peer',
    store: 'sqlite',
    isRust: true,
    measures: MEASURES_OF_DCB,
    about: `segments of 256 MiB and an index beside them that is not flushed; one flush for each group; ${ABOUT_DCB}`,
    open: ({ path }) => CratesSide.open(['tephra', path])
  },
  {
    name: `factstr-postgres ${VERSION}`,
    kind: 'peer',
    store: 'postgres',
    measures: MEASURES,
    tables: `relnamespace = 'factstr_crate'::regnamespace`,
    about: `synchronous_commit as the server has it; one connection, which does one thing after the other, so that callers queue; a GIN index on whole payloads, but once its statement is prepared the version of a context, max(sequence_number), is looked for from the end of the log, so that the oldest contexts cost most; ${IN_RUST}`,
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
    // JSON has no infinity.
    ...{ from, to, deadlineSeconds: Math.min(Math.max(0, deadlineSeconds), 1e6) }
  }),
  speedrun: ({ seconds }) => ({ seconds })
}

class CratesSide {
  #program
  #fresh = FRESH

  static async open(args, program = CRATES) {
    const side = new CratesSide()
    const path = await buildProgram(...program)
    side.#program = await Program.start(path, args)
    try {
      await checkEvents(side.#program, [0, FRESH])
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

  close() {
    return this.#program.end()
  }
}
