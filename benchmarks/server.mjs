// The server that is measured: one of our own, or that of FACTSTR_TEST_POSTGRES_URL. Everything
// happens in a database that is made for it and dropped in the end.

import { randomBytes } from 'node:crypto'

import pg from 'pg'

import { startPostgres } from '../scripts/postgres/server.mjs'
import { fsyncLatency } from './measure.mjs'

/** Told with the figures. */
const TOLD = [
  'fsync',
  'synchronous_commit',
  'full_page_writes',
  'wal_sync_method',
  'shared_buffers',
  'wal_buffers',
  'max_wal_size',
  'checkpoint_timeout',
  'autovacuum',
  'max_connections'
]

/**
 * Tests make the server smaller than it is by default: here it is as `initdb` makes it, but that each side has
 * a pool of its own.
 */
const AS_INSTALLED = { shared_buffers: '128MB', max_connections: '250' }

/**
 * Resolves to `{ url, pool, database, fsync, header, settle, stop }`: a new database with a small pool on it,
 * a function that makes another one, the latency of a flush where the data is, and lines about the server.
 */
export async function openServer() {
  const given = process.env.FACTSTR_TEST_POSTGRES_URL
  const own = given ? undefined : await startPostgres({ settings: AS_INSTALLED })
  const serverUrl = given || own.url
  const names = []
  const pools = []
  const database = async () => {
    const name = `factstr_bench_${randomBytes(6).toString('hex')}`
    await once(serverUrl, `CREATE DATABASE ${name}`)
    names.push(name)
    const url = Object.assign(new URL(serverUrl), { pathname: `/${name}` }).href
    const pool = new pg.Pool({ connectionString: url, max: 4 })
    // A server that ends first is told by whoever needs it.
    pool.on('error', () => {})
    pools.push(pool)
    return { url, pool, settle: () => settle(pool) }
  }
  const stop = async () => {
    for (const pool of pools) await pool.end()
    if (own) await own.stop()
    else for (const name of names) await once(serverUrl, `DROP DATABASE ${name} WITH (FORCE)`)
  }
  try {
    const first = await database()
    return {
      ...first,
      database,
      fsync: () => (own ? fsyncLatency(own.folder) : undefined),
      header: await about(first.pool),
      stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}

async function once(connectionString, sql) {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

async function about(pool) {
  const { rows } = await pool.query(
    `SELECT name, current_setting(name) AS value, setting = boot_val OR source = 'default' AS usual
     FROM pg_settings WHERE name = ANY ($1) ORDER BY array_position($1, name)`,
    [TOLD]
  )
  const settings = rows.map(({ name, value, usual }) => `${name}=${value}${usual ? '' : ' (set)'}`)
  const [{ server_version: version }] = (await pool.query('SHOW server_version')).rows
  return [
    `PostgreSQL ${version}, client on the same machine by TCP unless the URL says otherwise`
  ].concat(`${settings.join(', ')}; what is not marked is the server's own default`)
}

/** What autovacuum and the checkpointer would do some time or other is done before a measurement. */
async function settle(pool) {
  await pool.query('VACUUM (ANALYZE)')
  // Not everybody may: then it happens when it happens.
  await pool.query('CHECKPOINT').catch(() => {})
}
