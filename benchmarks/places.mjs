// Where stores are while they are measured.

import * as fs from 'node:fs'
import { join } from 'node:path'

import { fsyncLatency } from './measure.mjs'
import { number } from './report.mjs'
import { openServer } from './server.mjs'

/**
 * Opens where a kind of store is: `make()` resolves to a place where nothing is yet, with `settle()` where there is something to be done
 * before a measurement; `diskOf(side)` to `{ bytes, detail }`.
 */
export const openPlaces = (store, folder) => OPENINGS[store](folder)

const OPENINGS = {
  async memory() {
    return {
      store: 'memory',
      header: [],
      make: async () => ({}),
      fsync: () => undefined,
      close: async () => {}
    }
  },

  async sqlite(folder) {
    let count = 0
    return {
      store: 'sqlite',
      header: [],
      make: async () => ({ path: join(folder, `place-${++count}`) }),
      fsync: () => fsyncLatency(folder),
      async diskOf({ place }) {
        const log = `${place.path}-wal`
        const detail = fs.existsSync(log) ? ` (and a WAL of ${number(bytesOf(log) / 1e6)} MB)` : ''
        return { bytes: bytesOf(place.path), detail }
      },
      close: async () => {}
    }
  },

  async postgres() {
    const server = await openServer()
    return {
      store: 'postgres',
      header: server.header,
      make: server.database,
      fsync: server.fsync,
      diskOf: diskOfPostgres,
      close: server.stop
    }
  }
}

/** What a file, or a folder's files, take of the disk: of a file that is made larger beforehand, what was written. */
function bytesOf(path) {
  const found = fs.statSync(path)
  if (!found.isDirectory()) return Math.min(found.size, found.blocks * 512)
  return fs.readdirSync(path).reduce((sum, name) => sum + bytesOf(join(path, name)), 0)
}

async function diskOfPostgres({ tables, place }) {
  const { rows } = await place.pool.query(
    `SELECT relname AS name, pg_table_size(oid)::float8 AS own, pg_indexes_size(oid)::float8 AS indexes
     FROM pg_class WHERE ${tables} AND relkind IN ('r', 'p') ORDER BY pg_total_relation_size(oid) DESC`
  )
  const bytes = rows.reduce((sum, { own, indexes }) => sum + own + indexes, 0)
  const parts = rows
    .filter(({ own, indexes }) => own + indexes > bytes / 100)
    .map((row) => `${row.name} ${number(row.own / 1e6)} + ${number(row.indexes / 1e6)} MB`)
  return { bytes, detail: ` (tables + indexes: ${parts.join(', ')})` }
}
