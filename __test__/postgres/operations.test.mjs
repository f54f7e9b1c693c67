// The network breaks at every message of everything but appends: it is asked again, and told once.

import { describe, expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { startPostgres } from '../../scripts/postgres/server.mjs'
import { startProxy } from '../faults/proxy.mjs'
import { newSchema, serverUrl } from '../postgres.mjs'
import { closing, collect, event, having, numbersOf } from '../stores.mjs'
import { noted, recorder, upTo } from '../streams/streams.mjs'

const places = ['before', 'middle', 'after']

/** Does something again and again, cut at one message more each time, until that is beyond its end. */
async function cutEverywhere(proxy, least, run) {
  for (const at of places) {
    for (let many = 0; ; many++) {
      const cut = noted(proxy.cutOn((_, count) => count === many, { at }))
      await run(`${at} ${many}`)
      if (cut.isOver) continue
      expect(many).toBeGreaterThanOrEqual(least)
      // This cut must not get in the way of the next ones.
      while (!cut.isOver) await run(`${at} ${many}`)
      break
    }
  }
}

/** A server for much that is made, which need not survive a crash. */
async function quickServer() {
  const server = await startPostgres({ settings: { fsync: 'off' } })
  onTestFinished(() => server.stop())
  return server
}

const model = { name: 'model' }

/** What is asked, and how it stands before and afterwards. */
const operations = {
  query: async ({ store }) => {
    const { event_records: found, current_context_version: version } = await store.query(having(2))
    expect([numbersOf(found), version]).toEqual([[2], 2n])
  },
  read: async ({ store }) => {
    expect(numbersOf(await collect(store.read({}, { pageSize: 2 })))).toEqual([1, 2, 3])
  },
  headSequenceNumber: async ({ store }) => {
    expect(await store.headSequenceNumber()).toBe(3n)
  },
  listDurableStreams: async ({ store, direct }) => {
    const subscription = await direct.streamAllDurable(model, () => {})
    await subscription.unsubscribe()
    const expected = { name: 'model', position: 3n, active: false }
    expect(await store.listDurableStreams()).toMatchObject([expected])
  },
  resetDurableStream: async ({ store, direct }) => {
    const subscription = await direct.streamAllDurable(model, () => {})
    await subscription.unsubscribe()
    await store.resetDurableStream(model, 2n)
    expect(await direct.listDurableStreams()).toMatchObject([{ position: 2n }])
  },
  deleteDurableStream: async ({ store, direct }) => {
    const subscription = await direct.streamAllDurable(model, () => {})
    await subscription.unsubscribe()
    await store.deleteDurableStream(model)
    expect(await direct.listDurableStreams()).toEqual([])
  },
  streamAllDurable: async ({ store, direct }) => {
    const { calls, handle } = recorder()
    const subscription = await store.streamAllDurable(model, handle)
    await subscription.unsubscribe()
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    expect(calls).toEqual([[1], [2], [3]])
    expect(await direct.listDurableStreams()).toMatchObject([{ position: 3n, active: false }])
    await direct.deleteDurableStream(model)
  }
}

describe('the network may break in the middle of', () => {
  test.each(Object.entries(operations))('%s', async (_, run) => {
    const schema = newSchema()
    const direct = closing(new FactstrPostgresStore(serverUrl(), { schema }))
    const proxy = await startProxy(serverUrl())
    const store = closing(new FactstrPostgresStore(proxy.url, { schema }))
    for (const n of upTo(3)) await store.append([event('a', n)])
    await cutEverywhere(proxy, 7, async (where) => {
      try {
        await run({ store, direct })
      } catch (error) {
        error.message = `${where}: ${error.message}`
        throw error
      }
    })
  })

  test('making a schema, which is whole then', async () => {
    const server = await quickServer()
    const proxy = await startProxy(server.url)
    const contents = `SELECT relname::text AS name FROM pg_class WHERE relnamespace = $1::regnamespace
      UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = $1::regnamespace ORDER BY 1`
    let expected
    for (let many = 0; ; many++) {
      const schema = `made ${many}`
      const cut = noted(proxy.cutOn((_, count) => count === many, { at: places[many % 3] }))
      const store = closing(await FactstrPostgresStore.connect(proxy.url, { schema }))
      const isOver = !cut.isOver
      await store.append([event('a', many)])
      await store.close()
      const found = (await server.query(contents, [`"${schema}"`])).map(({ name }) => name)
      expected ??= found
      expect([many, found]).toEqual([many, expected])
      if (!isOver) continue
      expect(many).toBeGreaterThan(30)
      break
    }
  })

  test('making a database, which is there then', async () => {
    const server = await quickServer()
    const proxy = await startProxy(server.url)
    const makes = ({ type, text }) => 'PQ'.includes(type) && text.includes('CREATE DATABASE')
    for (let many = 0; ; many++) {
      let making
      let count = 0
      const isReached = (message) => {
        if (makes(message)) making = message.connection
        return message.connection === making && count++ === many
      }
      const cut = noted(proxy.cutOn(isReached, { at: places[many % 3] }))
      const databaseName = `made_${many}`
      const store = await FactstrPostgresStore.bootstrap({ serverUrl: proxy.url, databaseName })
      const isOver = !cut.isOver
      expect((await store.append([event('a', many)])).last_sequence_number).toBe(1n)
      await store.close()
      if (!isOver) continue
      expect(many).toBeGreaterThan(9)
      break
    }
  })
})
