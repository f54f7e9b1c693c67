// What a server, or a store's own options, have not enough of: connections, time, rights.

import { createServer } from 'node:net'
import { once } from 'node:events'
import { inspect } from 'node:util'

import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { startPostgres } from '../../scripts/postgres/server.mjs'
import { startProxy } from '../faults/proxy.mjs'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { closing, event, having, numbersOf } from '../stores.mjs'
import { failure, noted, recorder, until, upTo } from '../streams/streams.mjs'

const open = (url, options) => closing(new FactstrPostgresStore(url, options))

/** A session of somebody else. */
async function session() {
  const client = new pg.Client({ connectionString: serverUrl() })
  await client.connect()
  onTestFinished(() => client.end())
  return client
}

const waiting = (name) =>
  sql(
    `SELECT pid FROM pg_stat_activity
     WHERE application_name = $1 AND state = 'active' AND wait_event_type = 'Lock'`,
    [name]
  )

describe('the pool', () => {
  test('of one connection serves many, one after the other', async () => {
    const store = open(serverUrl(), { schema: newSchema(), maxConnections: 1 })
    const { calls, handle } = recorder()
    await store.streamAllDurable({ name: 'model' }, handle)
    await store.streamAll(() => {})
    await Promise.all(
      upTo(100).map(async (n) => {
        await store.append([event('a', { n })])
        await store.query()
        await store.listDurableStreams()
      })
    )
    await until(() => calls.flat().length === 100)
  })

  test('whose connections are all in use is told of, and only what reads waits for it', async () => {
    const schema = newSchema()
    const proxy = await startProxy(serverUrl())
    const store = open(proxy.url, { schema, maxConnections: 2, connectTimeoutMs: 300 })
    await store.append([event('a', 1)])
    const answers = upTo(2).map(() =>
      proxy.holdOn(({ direction, type }) => direction === 'toClient' && type === 'D')
    )
    // A rule that has seen its message lets the other one have the next.
    const slow = [store.query()]
    await Promise.race(answers.map(({ reached }) => reached))
    slow.push(store.query())
    await Promise.all(answers.map(({ reached }) => reached))
    const error = await failure(store.query())
    expect(error.code).toBe('BackendFailure')
    expect(error.message).toContain('all 2 of the pool are in use')
    await store.append([event('a', 2)])
    for (const { release } of answers) release()
    for (const { event_records: found } of await Promise.all(slow)) {
      expect(numbersOf(found)).toEqual([1])
    }
    expect(numbersOf((await store.query()).event_records)).toEqual([1, 2])
  })

  test('is no way out when the server has no connection left', async () => {
    const settings = {
      max_connections: '10',
      superuser_reserved_connections: '3',
      max_wal_senders: '0'
    }
    const server = await startPostgres({ settings })
    onTestFinished(() => server.stop())
    await server.query("CREATE ROLE app LOGIN PASSWORD 'app'")
    await server.query('CREATE DATABASE app OWNER app')
    const login = { user: 'app', password: 'app', database: 'app' }
    const store = open(server.urlOf(login), { connectTimeoutMs: 300, maxConnections: 2 })
    const { calls, handle } = recorder()
    await store.append([event('a', 1)])
    await store.streamAllDurable({ name: 'model' }, handle)
    const others = []
    for (;;) {
      const client = server.client(login)
      client.on('error', () => {})
      try {
        await client.connect()
        others.push(client)
      } catch (error) {
        expect(error.code).toBe('53300')
        break
      }
    }
    onTestFinished(() => Promise.all(others.map((client) => client.end())))
    const late = open(server.urlOf(login), { connectTimeoutMs: 300 })
    for (const outcome of [late.append([event('a', 'late')]), late.query()]) {
      const error = await failure(outcome)
      expect(error.code).toBe('BackendFailure')
      expect(error.message).toContain('too many connections')
    }
    // Those who have theirs go on; a store whose writer loses its own is told.
    await store.append([event('a', 2)])
    await until(() => calls.flat().length === 2)
    await others.pop().end()
    await late.append([event('a', 3)])
    await until(() => calls.flat().length === 3)
    expect(numbersOf((await store.query()).event_records)).toEqual([1, 2, 3])
  })
})

describe('a statement that takes longer than it may', () => {
  test('is cancelled, and has done nothing', async () => {
    const schema = newSchema()
    const options = { schema, statementTimeoutMs: 100, applicationName: schema }
    const store = open(serverUrl(), options)
    await store.append([event('a', 1)])
    const other = await session()
    await other.query('BEGIN')
    await other.query(`LOCK TABLE "${schema}".events IN ACCESS EXCLUSIVE MODE`)
    const outcomes = [
      store.append([event('a', 2)]),
      store.appendIf([event('a', 3)], {}, 1n),
      store.query(),
      store.headSequenceNumber()
    ].map(failure)
    for (const error of await Promise.all(outcomes)) {
      expect(error.code).toBe('BackendFailure')
      expect(error.message).toMatch(/took longer than 100ms|timeout/)
    }
    await until(async () => (await waiting(schema)).length === 0)
    await other.query('ROLLBACK')
    expect((await store.append([event('a', 4)])).last_sequence_number).toBe(2n)
    const { event_records: found } = await store.query()
    expect(found.map(({ payload }) => payload)).toEqual([1, 4])
  })

  test('by the settings of the server is told of as what it is', async () => {
    const schema = newSchema()
    const url = new URL(serverUrl())
    url.searchParams.set('options', '-clock_timeout=50')
    const store = open(url.href, { schema })
    await store.append([event('a', 1)])
    const other = await session()
    await other.query('BEGIN')
    await other.query(`LOCK TABLE "${schema}".events IN ACCESS EXCLUSIVE MODE`)
    const locked = await failure(store.append([event('a', 2)]))
    expect(locked).toMatchObject({ code: 'BackendFailure' })
    expect(locked.message).toContain('lock timeout')
    await other.query('ROLLBACK')
    expect((await store.append([event('a', 3)])).last_sequence_number).toBe(2n)
  })

  test('of a stream does not end it', async () => {
    const schema = newSchema()
    const store = open(serverUrl(), { schema, statementTimeoutMs: 100, applicationName: schema })
    const { calls, handle } = recorder()
    const streams = [
      await store.streamAll(handle),
      await store.streamAllDurable({ name: 'model' }, handle)
    ]
    const other = await session()
    await other.query('BEGIN')
    await other.query(
      `LOCK TABLE "${schema}".events, "${schema}".durable_streams IN ACCESS EXCLUSIVE MODE`
    )
    await until(async () => (await waiting(schema)).length > 0)
    const [{ pid }] = await waiting(schema)
    await until(async () => !(await waiting(schema)).some((each) => each.pid === pid))
    await other.query('ROLLBACK')
    await store.append([event('a', 1)])
    await until(() => calls.length === 2)
    for (const { closed } of streams) expect(noted(closed).isOver).toBe(false)
  })
})

describe('a server that can not be used', () => {
  const secret = 'pa ss:w@rd/%'
  const parts = ['pa ss', 'w@rd', encodeURIComponent(secret), encodeURIComponent('w@rd'), 'hunter']

  /** Nothing of an error or a store tells the password. */
  function expectSilence(...things) {
    for (const thing of things) {
      const said = [
        inspect(thing, { depth: 10, showHidden: true }),
        String(thing),
        thing.stack,
        thing.message,
        JSON.stringify(thing)
      ].join('\n')
      for (const part of parts) expect(said).not.toContain(part)
    }
  }

  async function refusals(url, options) {
    const store = new FactstrPostgresStore(url, { connectTimeoutMs: 300, ...options })
    const outcomes = [
      FactstrPostgresStore.connect(url, { connectTimeoutMs: 300, ...options }),
      FactstrPostgresStore.bootstrap({
        serverUrl: url,
        databaseName: 'never_there',
        connectTimeoutMs: 300,
        ...options
      }),
      store.append([event('a', 1)]),
      store.query(),
      store.streamAll(() => {}),
      store.listDurableStreams()
    ]
    const errors = await Promise.all(outcomes.map(failure))
    await store.close()
    expectSilence(store, ...errors)
    return errors
  }

  const urlWith = (change) => {
    const url = new URL(serverUrl())
    url.password = encodeURIComponent(secret)
    change?.(url)
    return url.href
  }

  test('because the password is wrong', async () => {
    for (const error of await refusals(urlWith())) {
      expect(error).toMatchObject({ code: 'BackendFailure' })
      expect(error.message).toContain('the password is wrong')
    }
  })

  test('because the user is not let in', async () => {
    for (const error of await refusals(urlWith((url) => (url.username = 'nobody')))) {
      expect(error).toMatchObject({ code: 'BackendFailure' })
      expect(error.message).toContain('nobody')
    }
  })

  test('because the database is not there', async () => {
    const url = new URL(serverUrl())
    url.pathname = '/not_there'
    for (const ask of [
      () => FactstrPostgresStore.connect(url.href),
      () => new FactstrPostgresStore(url.href).query()
    ]) {
      const error = await failure(ask())
      expect(error).toMatchObject({ code: 'BackendFailure' })
      expect(error.message).toContain('there is no such database')
      expect(inspect(error, { depth: 10 })).not.toContain(decodeURIComponent(url.password))
    }
  })

  test('because it says nothing', async () => {
    const silent = createServer(() => {})
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    onTestFinished(() => silent.close())
    const errors = await refusals(urlWith((url) => (url.port = String(silent.address().port))))
    for (const error of errors) {
      expect(error).toMatchObject({ code: 'BackendFailure' })
      expect(error.message).toContain('does not answer in time')
    }
  })

  test('because it says nothing more, whatever was said before', async () => {
    for (let many = 0; many < 3; many++) {
      const proxy = await startProxy(serverUrl())
      let asked = 0
      const silence = proxy.holdOn(({ direction, type }) => {
        if (direction === 'toServer' && type === 'S') asked++
        return asked > many
      })
      const store = open(proxy.url, {
        schema: newSchema(),
        connectTimeoutMs: 300,
        statementTimeoutMs: 300
      })
      const append = failure(store.append([event('a', 1)]))
      await silence.reached
      proxy.pause()
      expect(await append).toMatchObject({ code: 'BackendFailure' })
    }
  })

  test('because it hangs up, or speaks of something else', async () => {
    for (const answer of [
      (socket) => socket.destroy(),
      (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    ]) {
      const other = createServer((socket) => {
        socket.on('error', () => {})
        answer(socket)
      })
      other.listen(0, '127.0.0.1')
      await once(other, 'listening')
      onTestFinished(() => other.close())
      const errors = await refusals(urlWith((url) => (url.port = String(other.address().port))))
      for (const error of errors) expect(error).toMatchObject({ code: 'BackendFailure' })
    }
  })

  test('because nobody listens, or its name is unknown', async () => {
    const none = urlWith((url) => (url.port = '1'))
    for (const error of await refusals(none)) {
      expect(error).toMatchObject({ code: 'BackendFailure' })
      expect(error.message).toContain('nobody listens there')
    }
    for (const error of await refusals(urlWith((url) => (url.hostname = 'unknown.invalid')))) {
      expect(error).toMatchObject({ code: 'BackendFailure' })
    }
  })

  test('and no sooner than it was told', async () => {
    const none = urlWith((url) => (url.port = '1'))
    const asked = performance.now()
    const connecting = FactstrPostgresStore.connect(none, { connectTimeoutMs: 500 })
    await expect(connecting).rejects.toMatchObject({ code: 'BackendFailure' })
    expect(performance.now() - asked).toBeGreaterThanOrEqual(500)
  })

  test('because its URL can not be understood', async () => {
    for (const url of [
      `postgresql://postgres:${secret}@127.0.0.1/postgres`,
      `postgresql://postgres:${encodeURIComponent(secret)}@127.0.0.1:port/postgres`,
      `postgresql://postgres:${encodeURIComponent(secret)}@127.0.0.1/postgres?sslmode=maybe`,
      `host=127.0.0.1 password='${secret}' sslmode=maybe`,
      `host=127.0.0.1 password='${secret}`,
      'postgresql://postgres:x@hunter2/hunter2@127.0.0.1:1/postgres',
      'postgresql://postgres:x@/hunter2@127.0.0.1:1/postgres',
      'postgresql://postgres:x@hunter2?hunter=y@127.0.0.1:1/postgres',
      'postgresql://postgres:1/hunter2?user=y@127.0.0.1:1/postgres',
      'host=127.0.0.1 port=1 password=x user=y hunter=z',
      `http://postgres:${encodeURIComponent(secret)}@127.0.0.1/`
    ]) {
      for (const error of await refusals(url)) expect(error.code).toBe('InvalidOptions')
    }
  })

  test('does not keep what was right from being used later', async () => {
    const schema = newSchema()
    const proxy = await startProxy(serverUrl())
    proxy.refuse()
    const store = open(proxy.url, { schema, connectTimeoutMs: 200 })
    await expect(store.append([event('a', 1)])).rejects.toMatchObject({ code: 'BackendFailure' })
    await proxy.accept()
    expect((await store.append([event('a', 2)])).last_sequence_number).toBe(1n)
    expectSilence(store)
  })
})

test('a predicate that takes long to match holds back no other store of the process', async () => {
  const items = Array.from({ length: 4000 }, (_, n) => ({ id: n, color: n % 2 ? 'red' : 'blue' }))
  const [one, other] = [newSchema(), newSchema()].map((schema) => open(serverUrl(), { schema }))
  await one.append([event('listed', { items })])
  await other.append([event('noted', {})])
  const settled = []
  // Each of the 4,000 is looked for among as many.
  const ids = items.map(({ id }) => ({ id })).reverse()
  const long = one.query(having({ items: ids })).finally(() => settled.push('long'))
  for (let n = 0; n < 10; n++) {
    expect(await other.headSequenceNumber()).toBe(1n)
    settled.push('short')
  }
  expect((await long).event_records).toHaveLength(1)
  expect(settled.at(-1)).toBe('long')
})
