// The stores of this package.

import { readFileSync } from 'node:fs'

import { FactstrMemoryStore, FactstrPostgresStore, FactstrSqliteStore } from '../../index.js'
import { contextOf, decide } from '../loops.mjs'
import { courses } from '../speedrun.mjs'

/** Of the PostgreSQL store, in the database of a place. */
const SCHEMA = 'factstr'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

/** What workloads do to a store of ours. `store` is for those that only we have. */
function sideOf(store) {
  return {
    store,
    append: (facts) => store.append(facts),
    loop: (item, n, items) => decide(store, `item-${item}`, n, items),
    async query(item) {
      return (await store.query(contextOf(`item-${item}`))).event_records.length
    },
    async readAll() {
      let count = 0
      for await (const { payload } of store.read()) if (payload !== undefined) count++
      return count
    },
    speedrun: courses(store),
    close: () => store.close()
  }
}

const OPENINGS = {
  memory: async () => new FactstrMemoryStore(),
  sqlite: ({ path }) => FactstrSqliteStore.open(path),
  postgres: ({ url }) => FactstrPostgresStore.connect(url, { schema: SCHEMA })
}

/** Opens a store of ours at a place. */
export const openOurs = (kind, place) => OPENINGS[kind](place)

const about = 'every field of a payload is indexed, and can be part of a condition'

const sideFor = (store, what = about) => ({
  name: `factstr ${version}`,
  kind: 'ours',
  store,
  about: what,
  tables: `relnamespace = '${SCHEMA}'::regnamespace`,
  open: async (place) => sideOf(await openOurs(store, place))
})

export const sides = [
  sideFor('memory'),
  sideFor('sqlite', `${about}; durability: 'full'`),
  sideFor('postgres')
]
