// Servers that stop, crash and end connections while stores work.

import { describe, expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { startPostgres } from '../../scripts/postgres/server.mjs'
import { closing, event, numbersOf } from '../stores.mjs'
import { noted, recorder, until } from '../streams/streams.mjs'
import { startLoad } from './load.mjs'

async function serverOfItsOwn(options) {
  const server = await startPostgres(options)
  onTestFinished(() => server.stop())
  return server
}

const open = (server, options) =>
  closing(new FactstrPostgresStore(server.url, { connectTimeoutMs: 60_000, ...options }))

describe('a server', () => {
  test.each(['fast', 'immediate', 'kill -9'])(
    'that is ended (%s) and started under load',
    async (how) => {
      const server = await serverOfItsOwn()
      const stores = [open(server), open(server)]
      const load = await startLoad(stores)
      for (let round = 0; round < 3; round++) {
        await load.more(30)
        if (how === 'kill -9') await server.kill()
        else await server.halt(how)
        await server.start()
      }
      await load.more(30)
      await load.stop()
      // Nothing failed: it was tried again until there was a server.
      const { failed } = await load.check(stores[0])
      expect(failed).toEqual([])
      for (const { subscription } of load.streams) {
        expect(noted(subscription.closed).isOver).toBe(false)
      }
      const listed = await stores[0].listDurableStreams()
      expect(listed.map(({ active }) => active)).toEqual([true, true])
    }
  )

  test('may end every connection of a store, again and again', async () => {
    const server = await serverOfItsOwn()
    const stores = [open(server), open(server)]
    const load = await startLoad(stores)
    await load.more(20)
    const client = server.client()
    await client.connect()
    onTestFinished(() => client.end())
    let ended = 0
    const backends = "SELECT pid FROM pg_stat_activity WHERE application_name = 'factstr'"
    while (ended < 150) {
      const { rows } = await client.query(backends)
      for (const { pid } of rows) {
        await client.query('SELECT pg_terminate_backend($1)', [pid])
        ended++
      }
      // Some of them get to work before.
      await load.more(ended % 3)
    }
    await load.more(30)
    await load.stop()
    await load.check(stores[1])
    for (const { subscription } of load.streams) {
      expect(noted(subscription.closed).isOver).toBe(false)
    }
  })

  test('that crashes has not forgotten who runs a durable stream', async () => {
    // Nothing reaches the disk but what is committed for good.
    const server = await serverOfItsOwn({ settings: { wal_writer_delay: '10s' } })
    const store = open(server)
    await store.append([event('a', 1)])
    const { calls, handle } = recorder()
    const subscription = await store.streamAllDurable({ name: 'model' }, handle)
    const closed = noted(subscription.closed)
    await server.kill()
    await server.start()
    await store.append([event('a', 2)])
    await until(() => calls.length === 2 || closed.isOver)
    expect(closed.isOver).toBe(false)
    const isStored = async () => (await store.listDurableStreams())[0]?.position === 2n
    await until(async () => closed.isOver || (await isStored()))
    expect(closed.isOver).toBe(false)
  })

  test('that is away does not keep a store from being closed', async () => {
    const server = await serverOfItsOwn()
    const store = open(server, { connectTimeoutMs: 500 })
    await store.append([event('a', 1)])
    const { calls, handle } = recorder(async () => {})
    const streams = [
      await store.streamAll(handle),
      await store.streamAllDurable({ name: 'model' }, handle, { onError() {} })
    ]
    await store.append([event('a', 2)])
    await until(() => calls.length === 3)
    await server.kill()
    await store.close()
    const [live, durable] = await Promise.all(streams.map(({ closed }) => closed))
    expect(live).toEqual({ reason: 'store-closed' })
    // Its cursor could not be stored, so the newest batch may be repeated.
    expect(durable.reason).toBe('backend-failed')
    expect(durable.error.code).toBe('BackendFailure')
    await server.start()
    const other = open(server)
    expect(numbersOf((await other.query()).event_records)).toEqual([1, 2])
  })

  test('that dies while a stream reads does not keep its store from being closed', async () => {
    const server = await serverOfItsOwn()
    const [reading, writing] = [
      open(server, { connectTimeoutMs: 500, pollIntervalMs: 3_600_000 }),
      open(server, { connectTimeoutMs: 500 })
    ]
    await reading.append([event('a', 1)])
    let release
    const released = new Promise((resolve) => {
      release = resolve
    })
    const { calls, handle } = recorder(() => released)
    await reading.streamAll(handle)
    // The second batch is read back: by then there is no server.
    await reading.append([event('a', 2)])
    await until(() => calls.length === 1)
    await writing.append([event('a', 3)])
    await reading.append([event('a', 4)])
    await server.kill()
    release()
    await reading.close()
    expect(calls.flat().slice(0, 1)).toEqual([2])
  })
})

test('a holder whose server was away and another that waits: nothing is left out', async () => {
  const server = await serverOfItsOwn()
  const [one, other] = [open(server), open(server)]
  const [first, second] = [recorder(async () => {}), recorder(async () => {})]
  const held = await one.streamAllDurable({ name: 'model' }, first.handle)
  const waiting = other.streamAllDurable({ name: 'model' }, second.handle, { ifActive: 'wait' })
  const lost = noted(held.closed)
  await one.append([event('a', 1)])
  await until(() => first.calls.length === 1)
  for (let n = 2; n < 5; n++) {
    await server.kill()
    await server.start()
    await one.append([event('a', n)])
    await until(() => Math.max(first.calls.at(-1), second.calls.at(-1) ?? 0) === n)
  }
  // It goes on, or it was told that it does not, and the other does.
  if (lost.isOver) expect((await held.closed).reason).toBe('backend-failed')
  else await held.unsubscribe()
  await waiting
  await one.append([event('a', 5)])
  await until(() => second.calls.at(-1)?.[0] === 5)
  const seen = new Set([...first.calls, ...second.calls].flat())
  expect([...seen].toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4, 5])
})
