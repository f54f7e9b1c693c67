// That the servers, and the faults of tests, do what the tests believe.

import { existsSync } from 'node:fs'

import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'

import { reasonAgainst, startPgBouncer } from '../../scripts/postgres/pgbouncer.mjs'
import { startReplicated } from '../../scripts/postgres/replicated.mjs'
import { startPostgres } from '../../scripts/postgres/server.mjs'
import { newSchema, schemaOf, serverUrl, sql } from '../postgres.mjs'
import { message, start } from '../processes/processes.mjs'
import { noted, until } from '../streams/streams.mjs'
import { Authority } from './certificates.mjs'
import { startProxy } from './proxy.mjs'

describe('a server of its own', () => {
  test('keeps what it acknowledged, and its port, when it is killed', async () => {
    const server = await startPostgres()
    onTestFinished(() => server.stop())
    const { port } = server
    await server.query('CREATE TABLE t (n int)')
    await server.kill()
    await expect(server.query('SELECT 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await server.start()
    await server.query('INSERT INTO t VALUES (1)')
    await server.restart({ mode: 'immediate', settings: { work_mem: '5MB' } })
    expect(server.port).toBe(port)
    expect(await server.query('SELECT n FROM t')).toEqual([{ n: 1 }])
    expect(await server.query('SHOW work_mem')).toEqual([{ work_mem: '5MB' }])
    const client = await clientOf(await server.createDatabase('another "one"'))
    const { rows } = await client.query('SELECT current_database() AS name')
    expect(rows).toEqual([{ name: 'another "one"' }])
    if (server.socketDir === null) return
    const own = await server.query('SELECT inet_client_addr() AS a', [], { host: server.socketDir })
    expect(own).toEqual([{ a: null }])
  })

  test('ends with the process that started it, however that ends', async () => {
    for (const signal of ['SIGKILL', 'SIGINT']) {
      const child = start('hold-server.mjs')
      const { pid, folder } = await message(child)
      expect(existsSync(folder)).toBe(true)
      child.kill(signal)
      await until(() => !existsSync(folder))
      expect(() => process.kill(pid, 0)).toThrow('ESRCH')
    }
  })

  test('speaks TLS', async () => {
    const authority = new Authority()
    const issued = authority.issue({ names: ['localhost'], addresses: ['127.0.0.1'] })
    const server = await startPostgres({
      ssl: { ...issued, ca: authority.cert },
      hba: ['hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full']
    })
    onTestFinished(() => server.stop())
    const secure = "SELECT version LIKE 'TLS%' AS is FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    const owner = authority.issue({ common: server.user })
    const ask = (ssl) => server.query(secure, [], { ssl })
    expect(await ask({ ca: authority.cert, ...owner })).toEqual([{ is: true }])
    await expect(ask({ ca: authority.cert })).rejects.toThrow('certificate')
    await expect(ask({ ca: new Authority('Another').cert, ...owner })).rejects.toThrow()
    const other = authority.issue({ common: 'somebody' })
    await expect(ask({ ca: authority.cert, ...other })).rejects.toThrow('authentication failed')
  })
})

test('a schema of factstr-postgres 0.5.2 can be had', async () => {
  const schema = await schemaOf('legacy-0.5.2.postgres.sql')
  const [{ head }] = await sql(`SELECT max(sequence_number)::int AS head FROM "${schema}".events`)
  expect(head).toBe(13)
  const cursors = await sql(`SELECT * FROM "${schema}".durable_stream_cursors`)
  expect(cursors.map((row) => Number(row.last_processed_sequence_number))).toEqual([0, 4, 11, 11])
})

/** A client of the URL, whose connection may break. */
async function clientOf(connectionString) {
  const client = new pg.Client({ connectionString })
  client.on('error', () => {})
  await client.connect()
  onTestFinished(() => client.end().catch(() => {}))
  return client
}

async function table() {
  const schema = newSchema()
  await sql(`CREATE SCHEMA "${schema}"`)
  await sql(`CREATE TABLE "${schema}".t (n int)`)
  const rows = async () => (await sql(`SELECT n FROM "${schema}".t`)).map(({ n }) => n)
  return { insert: (n) => `INSERT INTO "${schema}".t VALUES (${n})`, rows }
}

const isInsert = ({ type, text }) => type === 'Q' && text.startsWith('INSERT')
const isDone = ({ type, text }) => type === 'C' && text.startsWith('INSERT')

describe('the network', () => {
  test('can be cut at every point of an exchange', async () => {
    const proxy = await startProxy(serverUrl())
    const cases = [
      [isInsert, 'before', false],
      [isInsert, 'middle', false],
      [isInsert, 'after', true],
      [isDone, 'before', true],
      [isDone, 'middle', true],
      [isDone, 'after', true]
    ]
    for (const [predicate, at, arrives] of cases) {
      const { insert, rows } = await table()
      const client = await clientOf(proxy.url)
      const happened = proxy.cutOn(predicate, { at })
      await expect(client.query(insert(1))).rejects.toThrow()
      await happened
      // What the server has got, it does, though nobody hears of it.
      if (arrives) await until(async () => (await rows()).length === 1)
      else await until(() => proxy.connections.size === 0)
      expect([at, await rows()]).toEqual([at, arrives ? [1] : []])
    }
  })

  test('can be cut at every message there is', async () => {
    const { insert, rows } = await table()
    const proxy = await startProxy(serverUrl())
    let sent = 0
    for (let n = 0; ; n++) {
      const cut = noted(proxy.cutOn((_, count) => count === n))
      const client = new pg.Client({ connectionString: proxy.url })
      client.on('error', () => {})
      try {
        await client.connect()
        await client.query({ text: insert('$1'), values: [n] })
        sent = n
      } catch {
        // The cut.
      }
      await client.end().catch(() => {})
      if (!cut.isOver) break
      proxy.cut()
    }
    // From the start-up packet on, every message was the last one once.
    expect(sent).toBeGreaterThan(20)
    expect(await rows()).toContain(sent)
  })

  test('can be cut after any number of bytes', async () => {
    const proxy = await startProxy(serverUrl())
    for (const direction of ['toServer', 'toClient']) {
      const client = await clientOf(proxy.url)
      const happened = proxy.cutAfterBytes(20_000, direction)
      const query = client.query({ text: 'SELECT $1::text', values: ['x'.repeat(100_000)] })
      await expect(query).rejects.toThrow()
      await happened
    }
  })

  test('can be held, paused, cut and closed', async () => {
    const { insert, rows } = await table()
    const proxy = await startProxy(serverUrl())
    const client = await clientOf(proxy.url)
    const { reached, release } = proxy.holdOn(isDone)
    const inserted = client.query(insert(1))
    await reached
    expect(await rows()).toEqual([1])
    release()
    await inserted

    proxy.pause()
    const second = client.query(insert(2))
    expect(await rows()).toEqual([1])
    proxy.resume()
    await second
    expect(await rows()).toEqual([1, 2])

    proxy.refuse()
    await client.query(insert(3))
    const refused = new pg.Client({ connectionString: proxy.url })
    await expect(refused.connect()).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    const broken = new Promise((resolve) => {
      client.once('end', resolve)
    })
    proxy.cut()
    await broken
    await until(() => proxy.connections.size === 0)
    await proxy.accept()
    expect((await (await clientOf(proxy.url)).query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
    expect(proxy.accepted).toBe(2)
  })

  test('can delay a message until its sender has left', async () => {
    const { insert, rows } = await table()
    const proxy = await startProxy(serverUrl())
    const client = await clientOf(proxy.url)
    const { reached, release } = proxy.holdOn(isInsert)
    const inserted = noted(client.query(insert(1)))
    await reached
    await new Promise((resolve) => {
      client.connection.stream.once('close', resolve)
      client.connection.stream.destroy()
    })
    await until(() => inserted.isOver)
    expect(await rows()).toEqual([])
    release()
    await until(async () => (await rows()).length === 1)
  })
})

describe('PgBouncer', () => {
  if (reasonAgainst) console.log(reasonAgainst)

  test.skipIf(reasonAgainst)('pools transactions, and keeps nothing of a session', async () => {
    const bouncer = await startPgBouncer(serverUrl(), { settings: { default_pool_size: 1 } })
    onTestFinished(() => bouncer.stop())
    const [one, two] = [await clientOf(bouncer.url), await clientOf(bouncer.url)]
    const pid = async (client) => (await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid
    expect(await pid(one)).toBe(await pid(two))
    // A statement that one client prepared is on the connection that the other gets.
    const named = { name: 'n', text: 'SELECT 1 AS one' }
    expect((await one.query(named)).rows).toEqual([{ one: 1 }])
    await expect(two.query(named)).rejects.toMatchObject({ code: '42P05' })
    const unknown = new pg.Client({
      connectionString: bouncer.url,
      options: '-c statement_timeout=1000'
    })
    await expect(unknown.connect()).rejects.toThrow('unsupported startup parameter')
  })
})

test('a standby holds what was committed, and takes over', async () => {
  const pair = await startReplicated()
  onTestFinished(() => pair.stop())
  const { primary, standby } = pair
  expect(new URL(pair.url.replace(/,[^/]*/, '')).searchParams.get('target_session_attrs')).toBe(
    'read-write'
  )
  await primary.query('CREATE TABLE t (n int)')
  await expect(standby.query('CREATE TABLE u (n int)')).rejects.toMatchObject({ code: '25006' })

  // A commit waits for the standby.
  await standby.halt()
  const inserted = noted(primary.query('INSERT INTO t VALUES (1)'))
  const waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
  await until(async () => (await primary.query(waiting)).length === 1)
  expect(inserted.isOver).toBe(false)
  await standby.start()
  await until(() => inserted.isOver)

  await primary.kill()
  await pair.promote()
  await standby.query('INSERT INTO t VALUES (2)')
  expect(await standby.query('SELECT n FROM t')).toEqual([{ n: 1 }, { n: 2 }])
})
