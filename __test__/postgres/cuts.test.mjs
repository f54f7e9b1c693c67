// The network between a store and its server breaks at every point of an append.

import { describe, expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { reasonAgainst, startPgBouncer } from '../../scripts/postgres/pgbouncer.mjs'
import { startProxy } from '../faults/proxy.mjs'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { closing, event, having } from '../stores.mjs'
import { failure, noted, until, upTo } from '../streams/streams.mjs'

/** Tells which connection appends: that which asked to last. */
function writerOf(proxy) {
  const writer = {}
  void proxy.cutOn(({ direction, type, text, connection }) => {
    if (direction === 'toServer' && type === 'P' && text.includes('factstr_append')) {
      writer.connection = connection
    }
    return false
  })
  return writer
}

/** Picks the message of an append that comes so many after its first one. */
function afterAppend(writer, many) {
  let count = 0
  return ({ connection }) => connection === writer.connection && count++ === many
}

/** A log of its own, and what is in it, as no store tells it. */
async function newLog() {
  const schema = newSchema()
  const store = closing(await FactstrPostgresStore.connect(serverUrl(), { schema }))
  await store.close()
  const rows = () =>
    sql(
      `SELECT sequence_number::int AS n, payload_json AS payload FROM "${schema}".events ORDER BY 1`
    )
  return {
    open: (url, options) =>
      closing(new FactstrPostgresStore(url, { applicationName: schema, ...options, schema })),
    /** How many sessions the server has of the stores that `open` made. */
    sessions: async () => {
      const asked = 'SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = $1'
      return (await sql(asked, [schema]))[0].n
    },
    /** The payloads, if no number is missing. */
    payloads: async () => {
      const all = await rows()
      expect(all.map(({ n }) => n)).toEqual(upTo(all.length))
      return all.map(({ payload }) => JSON.parse(payload))
    }
  }
}

const numbers = ({ first_sequence_number: first, last_sequence_number: last }) => [
  Number(first),
  Number(last)
]

/** What callers ask for, what they are answered, and what is in the log then. */
const appends = {
  single: {
    run: async (store, id) => [numbers(await store.append([event('a', { id })]))],
    answers: (head) => [[head + 1, head + 1]],
    stored: (id) => [{ id }]
  },
  conditional: {
    run: async (store, id) => {
      const { append_result: appended } = await store.appendIf(
        [event('a', { id }), event('b', { id })],
        having({ id }),
        null
      )
      return [numbers(appended)]
    },
    answers: (head) => [[head + 1, head + 2]],
    stored: (id) => [{ id }, { id }]
  },
  grouped: {
    run: async (store, id) => {
      const answers = await Promise.all([
        store.append([event('a', { id, n: 1 })]),
        store.append([event('a', { id, n: 2 }), event('a', { id, n: 3 })]),
        store.appendIf([event('a', { id, n: 4 })], having({ id }), null),
        store.appendIf([event('a', { id, n: 5 })], having({ id, n: 5 }), null),
        store.append([event('a', { id, n: 6 })])
      ])
      return answers.map(({ conflict, append_result: result, ...appended }) =>
        conflict ? Number(conflict.actual_context_version) : numbers(result ?? appended)
      )
    },
    answers: (head) => [
      [head + 1, head + 1],
      [head + 2, head + 3],
      head + 3,
      [head + 4, head + 4],
      [head + 5, head + 5]
    ],
    stored: (id) => [1, 2, 3, 5, 6].map((n) => ({ id, n }))
  }
}

const places = ['before', 'middle', 'after']

/** How stores get to the server, and how many messages an append has then, to it and from it. */
const routes = [
  {
    route: 'a connection to the server',
    messages: 7,
    connect: async () => ({ url: serverUrl(), stop() {}, start() {} })
  },
  {
    route: 'a connection of another isolation level',
    messages: 13,
    connect: async () => {
      const url = new URL(serverUrl())
      url.searchParams.set('options', '-cdefault_transaction_isolation=serializable')
      return { url: url.href, stop() {}, start() {} }
    }
  },
  // In its sessions nothing is prepared.
  {
    route: 'a connection to a pooler',
    messages: 12,
    reason: reasonAgainst,
    connect: async () => {
      let bouncer = await startPgBouncer(serverUrl())
      onTestFinished(() => bouncer.stop())
      const { url, port } = bouncer
      const start = async () => {
        bouncer = await startPgBouncer(serverUrl(), { port })
      }
      return { url, stop: () => bouncer.stop(), start }
    }
  }
]
if (reasonAgainst) console.log(reasonAgainst)

const cases = Object.entries(appends).map(([kind, append]) => ({ kind, ...append }))

describe.each(routes.flatMap((route) => cases.map((each) => ({ ...route, ...each }))))(
  'a $kind append by $route',
  ({ connect, messages, reason, run, answers, stored }) => {
    test.skipIf(reason)('is committed once, wherever its connection is cut', async () => {
      const log = await newLog()
      const { url } = await connect()
      const proxy = await startProxy(url)
      const writer = writerOf(proxy)
      const store = log.open(proxy.url)
      await store.append([event('first', { id: -1 })])
      const expected = [{ id: -1 }]
      let id = 0
      for (const at of places) {
        for (let many = 0; ; many++) {
          const cut = proxy.cutOn(afterAppend(writer, many), { at })
          const state = noted(cut)
          expect([at, many, await run(store, id)]).toEqual([at, many, answers(expected.length)])
          expected.push(...stored(id))
          id++
          if (!state.isOver) {
            // This cut was beyond the append's last message: it is the next append's.
            await store.append([event('next', { id: -2 })])
            expected.push({ id: -2 })
            await cut
            expect(many).toBeGreaterThanOrEqual(messages)
            break
          }
        }
      }
      expect(await log.payloads()).toEqual(expected)
    })

    test.skipIf(reason)('of unknown outcome is told as that, and no other', async () => {
      const log = await newLog()
      const target = await connect()
      const outcomes = await Promise.all(
        places.flatMap((at) =>
          upTo(messages).map(async (many) => {
            const id = `${at} ${many}`
            const proxy = await startProxy(target.url)
            const writer = writerOf(proxy)
            const store = log.open(proxy.url, { connectTimeoutMs: 1_500, maxConnections: 1 })
            await store.append([event('first', { id: -1 })])
            const cut = proxy.cutOn(afterAppend(writer, many - 1), { at })
            void cut.then(() => proxy.refuse())
            const outcome = await run(store, id).then(
              () => 'appended',
              ({ code }) => code
            )
            await cut
            return { id, outcome, store, proxy }
          })
        )
      )
      // Nothing of them is on its way any more.
      await until(() => outcomes.every(({ proxy }) => proxy.connections.size === 0))
      await target.stop()
      await until(async () => (await log.sessions()) === 0)
      const payloads = await log.payloads()
      for (const { id, outcome } of outcomes) {
        const found = payloads.filter((payload) => payload.id === id)
        const whole = stored(id)
        // All or nothing; and the order of the calls is the log's.
        if (found.length > 0) expect([id, found]).toEqual([id, whole])
        if (outcome === 'appended') expect([id, found]).toEqual([id, whole])
        else expect([id, outcome]).toEqual([id, 'OutcomeUnknown'])
      }
      const kinds = new Set(outcomes.map(({ outcome }) => outcome))
      expect(kinds).toEqual(new Set(['appended', 'OutcomeUnknown']))
      // They go on, once the network is back.
      await target.start()
      const before = payloads.length
      await Promise.all(
        outcomes.map(async ({ store, proxy }) => {
          await proxy.accept()
          await store.append([event('last', { id: -2 })])
        })
      )
      expect(await log.payloads()).toHaveLength(before + outcomes.length)
    })
  }
)

test('without a server nothing is appended, and that is certain', async () => {
  const log = await newLog()
  const proxy = await startProxy(serverUrl())
  const store = log.open(proxy.url, { connectTimeoutMs: 300 })
  await store.append([event('a', 1)])
  proxy.refuse()
  proxy.cut()
  await until(async () => (await log.sessions()) === 0)
  expect(await failure(store.append([event('a', 2)]))).toMatchObject({ code: 'BackendFailure' })
  expect(await failure(store.query())).toMatchObject({ code: 'BackendFailure' })
  await proxy.accept()
  await store.append([event('a', 3)])
  expect(await log.payloads()).toEqual([1, 3])
})

test('a store gets over a cut at every message from its first one on', async () => {
  const log = await newLog()
  const proxy = await startProxy(serverUrl())
  const expected = []
  for (let many = 0; ; many++) {
    const cut = noted(proxy.cutOn((_, count) => count === many, { at: places[many % 3] }))
    const store = log.open(proxy.url)
    const { conflict } = await store.appendIf([event('a', many)], having(many), null)
    expect(conflict).toBe(null)
    expected.push(many)
    const { event_records: found } = await store.query(undefined, { limit: 1 })
    expect([many, found[0].payload]).toEqual([many, 0])
    const isOver = !cut.isOver
    await store.close()
    if (!isOver) continue
    proxy.cut()
    expect(many).toBeGreaterThan(20)
    break
  }
  expect(await log.payloads()).toEqual(expected)
})

describe('what is late', () => {
  test('is not committed when it arrives after it was given up', async () => {
    const log = await newLog()
    const proxy = await startProxy(serverUrl())
    const writer = writerOf(proxy)
    const store = log.open(proxy.url, { statementTimeoutMs: 50 })
    await store.append([event('a', 'first')])
    const request = proxy.holdOn(afterAppend(writer, 0))
    const append = store.append([event('a', 'late')])
    const late = await request.reached
    // The server did not even hear of it, so another connection appends it.
    expect((await append).last_sequence_number).toBe(2n)
    // The server answers when it is done with all of it.
    const done = proxy.holdOn(
      ({ connection, direction }) => connection === late && direction === 'toClient'
    )
    request.release()
    await done.reached
    done.release()
    expect(await log.payloads()).toEqual(['first', 'late'])
  })

  test('is found out when it was the answer', async () => {
    const log = await newLog()
    const proxy = await startProxy(serverUrl())
    const writer = writerOf(proxy)
    const store = log.open(proxy.url, { statementTimeoutMs: 50 })
    await store.append([event('a', 'first')])
    const answer = proxy.holdOn(
      ({ connection, direction }) => connection === writer.connection && direction === 'toClient'
    )
    const append = store.appendIf([event('a', 'late')], having('late'), null)
    await answer.reached
    await until(async () => (await log.payloads()).length === 2)
    expect((await append).append_result.last_sequence_number).toBe(2n)
    answer.release()
    await store.append([event('a', 'last')])
    expect(await log.payloads()).toEqual(['first', 'late', 'last'])
  })

  test('is found out although all connections of the pool are in use', async () => {
    const log = await newLog()
    const proxy = await startProxy(serverUrl())
    const writer = writerOf(proxy)
    const store = log.open(proxy.url, { connectTimeoutMs: 1_000, maxConnections: 1 })
    await store.append([event('a', 'first')])
    const answer = proxy.holdOn(({ direction, type }) => direction === 'toClient' && type === 'D')
    const query = store.query()
    await answer.reached
    const cut = proxy.cutOn(afterAppend(writer, 4))
    await store.append([event('a', 'second')])
    await cut
    answer.release()
    // It was asked before.
    expect((await query).event_records).toHaveLength(1)
    expect(await log.payloads()).toEqual(['first', 'second'])
  })
})
