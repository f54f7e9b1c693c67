// PgBouncer between stores and their server, which lends a session for one transaction only.

import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { reasonAgainst, startPgBouncer } from '../../scripts/postgres/pgbouncer.mjs'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { ended, start } from '../processes/processes.mjs'
import { closing, collect, event, having, numbersOf } from '../stores.mjs'
import { appendBatches, failure, noted, recorder, until, upTo } from '../streams/streams.mjs'
import { startLoad } from './load.mjs'

if (reasonAgainst) console.log(reasonAgainst)

const POOL = 6

async function pooler(options) {
  const bouncer = await startPgBouncer(serverUrl(), {
    ...options,
    settings: { default_pool_size: POOL, ...options?.settings }
  })
  onTestFinished(() => bouncer.stop())
  return bouncer
}

const open = ({ url }, options) => closing(new FactstrPostgresStore(url, options))

/** What is left of others in each of the sessions that a pooler has: all are borrowed at once. */
async function leftBehind({ url }) {
  const clients = upTo(POOL).map(() => new pg.Client({ connectionString: url }))
  const left = []
  try {
    for (const client of clients) {
      await client.connect()
      await client.query('BEGIN')
      const asked = await client.query(`SELECT pg_backend_pid() AS pid,
        (SELECT coalesce(array_agg(c), '{}') FROM pg_listening_channels() c) AS channels,
        (SELECT coalesce(array_agg(name), '{}') FROM pg_prepared_statements) AS statements,
        (SELECT coalesce(array_agg(name::text || '=' || setting), '{}') FROM pg_settings
          WHERE source = 'session' AND name NOT IN
            ('application_name', 'client_encoding', 'DateStyle', 'TimeZone',
             'standard_conforming_strings', 'transaction_isolation', 'transaction_read_only',
             'transaction_deferrable')) AS settings,
        (SELECT coalesce(array_agg(objid::text), '{}') FROM pg_locks
          WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
        current_setting('factstr.session', true) AS own`)
      left.push(asked.rows[0])
    }
  } finally {
    for (const client of clients) await client.end()
  }
  return left
}

async function expectNothingLeft(bouncer) {
  const left = await leftBehind(bouncer)
  expect(new Set(left.map(({ pid }) => pid)).size).toBe(POOL)
  for (const { pid, own, ...rest } of left) {
    expect([pid, own ?? '']).toEqual([pid, ''])
    expect(rest).toEqual({ channels: [], statements: [], settings: [], locks: [] })
  }
}

describe.skipIf(reasonAgainst)('through a pooler', () => {
  test.each([{}, { ignore_startup_parameters: 'options,extra_float_digits' }])(
    'a store does all that it does, and leaves nothing in a session (%j)',
    async (settings) => {
      const bouncer = await pooler({ settings })
      const schema = newSchema()
      const stores = [open(bouncer, { schema }), open(bouncer, { schema, maxConnections: 2 })]
      const load = await startLoad(stores)
      await load.more(150)
      await load.stop()
      const { records, failed } = await load.check(stores[1])
      expect(failed).toEqual([])
      const [{ payload }] = records
      const { event_records: found } = await stores[0].query(having({ id: payload.id }))
      expect(found).toEqual(records.filter((each) => each.payload.id === payload.id))
      const backwards = await collect(stores[1].read({}, { backwards: true, pageSize: 7 }))
      expect(backwards).toEqual(records.toReversed())
      const listed = await stores[0].listDurableStreams()
      expect(listed.map(({ name, active }) => [name, active])).toEqual([
        ['durable 0', true],
        ['durable 1', true]
      ])
      const taken = await failure(stores[0].streamAllDurable({ name: 'durable 1' }, () => {}))
      expect(taken).toMatchObject({ code: 'DurableStreamActive' })
      await expectNothingLeft(bouncer)
      await stores[1].close()
      await stores[0].resetDurableStream({ name: 'durable 1' })
      const replayed = recorder()
      await stores[0].streamAllDurable({ name: 'durable 1' }, replayed.handle)
      expect(replayed.calls.flat()).toEqual(numbersOf(records))
      await stores[0].close()
      await expectNothingLeft(bouncer)
    }
  )

  test('a wait for a session counts as the time to connect', async () => {
    const bouncer = await pooler({ settings: { query_wait_timeout: 1 } })
    const schema = newSchema()
    const options = { schema, connectTimeoutMs: 500 }
    const store = open(bouncer, options)
    await store.append([event('a', 1)])
    const others = upTo(POOL).map(() => new pg.Client({ connectionString: bouncer.url }))
    for (const client of others) {
      client.on('error', () => {})
      await client.connect()
      await client.query('BEGIN')
    }
    const errors = await Promise.all([
      failure(store.append([event('a', 2)])),
      failure(store.query())
    ])
    for (const error of errors) expect(['BackendFailure', 'OutcomeUnknown']).toContain(error.code)
    for (const client of others) await client.end()
    await store.append([event('a', 3)])
    const payloads = (await collect(store.read())).map(({ payload }) => payload)
    if (errors[0].code === 'BackendFailure') expect(payloads).toEqual([1, 3])
    else expect(payloads.filter((n) => n !== 2)).toEqual([1, 3])
  })

  test('a statement that takes too long is cancelled on the server', async () => {
    const bouncer = await pooler()
    const schema = newSchema()
    const store = open(bouncer, { schema, statementTimeoutMs: 100, applicationName: schema })
    await store.append([event('a', 1)])
    const other = new pg.Client({ connectionString: serverUrl() })
    await other.connect()
    onTestFinished(() => other.end())
    await other.query('BEGIN')
    await other.query(`LOCK TABLE "${schema}".events IN ACCESS EXCLUSIVE MODE`)
    const outcomes = await Promise.all([
      failure(store.append([event('a', 2)])),
      failure(store.query())
    ])
    for (const error of outcomes) expect(error.code).toBe('BackendFailure')
    const waiting = `SELECT 1 FROM pg_locks WHERE NOT granted AND relation = '"${schema}".events'::regclass`
    await until(async () => (await sql(waiting)).length === 0)
    await other.query('ROLLBACK')
    await store.append([event('a', 3)])
    expect((await collect(store.read())).map(({ payload }) => payload)).toEqual([1, 3])
  })

  test('stores work on while the pooler is started again', async () => {
    let bouncer = await startPgBouncer(serverUrl())
    onTestFinished(() => bouncer.stop())
    const options = { schema: newSchema(), connectTimeoutMs: 60_000 }
    const stores = [open(bouncer, options), open(bouncer, options)]
    const load = await startLoad(stores)
    for (let round = 0; round < 4; round++) {
      await load.more(40)
      const { port } = bouncer
      await bouncer.stop()
      bouncer = await startPgBouncer(serverUrl(), { port })
    }
    await load.more(40)
    await load.stop()
    const { failed } = await load.check(stores[0])
    expect(failed).toEqual([])
    for (const { subscription } of load.streams) {
      expect(noted(subscription.closed).isOver).toBe(false)
    }
  })

  test('stores work on while the pooler loses its sessions of the server', async () => {
    const bouncer = await pooler()
    const options = { schema: newSchema(), applicationName: newSchema() }
    const stores = [open(bouncer, options), open(bouncer, options)]
    const load = await startLoad(stores)
    const end = `SELECT count(pg_terminate_backend(pid))::int AS n FROM pg_stat_activity
      WHERE application_name = $1`
    let ends = 0
    while (ends < 60) {
      await load.more(5)
      ends += (await sql(end, [options.applicationName]))[0].n
    }
    await load.more(40)
    await load.stop()
    await load.check(stores[0])
    for (const { subscription } of load.streams) {
      expect(noted(subscription.closed).isOver).toBe(false)
    }
  })

  test('processes count and stream as without', async () => {
    const bouncer = await pooler()
    const schema = newSchema()
    const place = JSON.stringify({ kind: 'postgres', url: bouncer.url, schema })
    const direct = closing(new FactstrPostgresStore(serverUrl(), { schema }))
    const store = open(bouncer, { schema })
    const [live, durable, directly] = [recorder(), recorder(async () => {}), recorder()]
    await store.streamAll(live.handle)
    await store.streamAllDurable({ name: 'model' }, durable.handle)
    await direct.streamAll(directly.handle)
    const children = upTo(3).map(() => start('count.mjs', place, 'hot', 20))
    for (const child of children) expect(await ended(child)).toBe(0)
    await appendBatches(direct, 2)
    const records = await collect(store.read())
    expect(records.slice(0, 60).map(({ payload }) => payload.value)).toEqual(upTo(60))
    for (const { calls } of [live, durable, directly]) {
      await until(() => calls.length === 61)
      expect(calls).toEqual([...upTo(60).map((n) => [n]), [61, 62]])
    }
  })
})
