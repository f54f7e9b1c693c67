// @event-driven-io/emmett: streams that the application chooses, each with its version. What can be asked for
// is one stream, so a decision that concerns two things at once (the speedrun) can't be made.

import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

import { decision } from '../loops.mjs'
import { now } from '../measure.mjs'
import { POOL_SIZE, committed, poolOf } from './pool.mjs'
import { versionOf } from './versions.mjs'

const eventOf = ({ event_type: type, payload }) => ({ type, data: payload })

function sideOf(store, isConflict, lanes) {
  return {
    append: (facts) => store.appendToStream(facts[0].payload.order_id, facts.map(eventOf)),
    loop: async (item, n, items) => {
      const stream = `item-${item}`
      const { events, currentStreamVersion } = await store.readStream(stream)
      // The fact goes into the stream that was read, since versions are of one stream.
      const next = eventOf(decision(events, n, items))
      return committed(
        store.appendToStream(stream, [next], { expectedStreamVersion: currentStreamVersion }),
        isConflict
      )
    },
    query: async (item) => (await store.readStream(`item-${item}`)).events.length,
    /** Item by item: the ten events of a stream are one append. */
    async fill({ from, to }, factAt, deadline) {
      const items = (to - from) / 10
      let item = 0
      const lane = async () => {
        while (item < items && now() < deadline) {
          const first = from + item
          const facts = Array.from({ length: 10 }, (_, k) => eventOf(factAt(first + k * items)))
          await store.appendToStream(`item-${from / 10 + item++}`, facts)
        }
      }
      await Promise.all(Array.from({ length: lanes }, lane))
      return item === items
    }
  }
}

async function openPostgres({ url }) {
  const { isExpectedVersionConflictError } = await import('@event-driven-io/emmett')
  const { getPostgreSQLEventStore } = await import('@event-driven-io/emmett-postgresql')
  const pool = poolOf(url)
  const store = getPostgreSQLEventStore(url, {
    schema: { autoMigration: 'None' },
    connectionOptions: { pool }
  })
  await store.schema.migrate()
  return {
    ...sideOf(store, isExpectedVersionConflictError, POOL_SIZE),
    async close() {
      await store.close()
      await pool.end()
    }
  }
}

/** Its own folder, because it needs an older release of the package that both build on. */
const FOLDER = 'emmett-sqlite'

async function openSqlite({ path }) {
  const require = createRequire(new URL(`../${FOLDER}/package.json`, import.meta.url))
  const load = async (name) => import(pathToFileURL(require.resolve(name)).href)
  const { isExpectedVersionConflictError } = await load('@event-driven-io/emmett')
  const { getSQLiteEventStore } = await load('@event-driven-io/emmett-sqlite')
  const store = getSQLiteEventStore({ fileName: path })
  return {
    ...sideOf(store, isExpectedVersionConflictError, 1),
    mostCallers: 1,
    close: async () => {}
  }
}

export const sides = [
  {
    name: `emmett-postgresql ${versionOf('@event-driven-io/emmett-postgresql')}`,
    kind: 'peer',
    store: 'postgres',
    tables: `relname LIKE 'emt%'`,
    about: `a context is a stream, which is all that can be asked for; a pool of ${POOL_SIZE}`,
    open: openPostgres
  },
  {
    name: `emmett-sqlite ${versionOf('@event-driven-io/emmett-sqlite', FOLDER)}`,
    kind: 'peer',
    store: 'sqlite',
    about:
      'a context is a stream; synchronous=FULL, SQLite’s default; one caller only, because whichever call ends ' +
      'closes the connection of all',
    open: openSqlite
  }
]
