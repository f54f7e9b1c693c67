// Many processes on one log: what one commits, all others count with and are told of.

import { setTimeout as sleep } from 'node:timers/promises'

import { expect, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { startProxy } from '../faults/proxy.mjs'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { openAt } from '../processes/place.mjs'
import { ended, start } from '../processes/processes.mjs'
import { closing, collect, event, numbersOf } from '../stores.mjs'
import { appendBatches, recorder, until, untilAllToldOf, upTo } from '../streams/streams.mjs'

const newPlace = (rest) =>
  JSON.stringify({ kind: 'postgres', url: serverUrl(), schema: newSchema(), ...rest })

/** The messages of a process so far. */
function told(child) {
  const messages = []
  child.on('message', (message) => messages.push(message))
  return messages
}

/** A process that watches, once it does. */
async function watcher(place, options = {}) {
  const child = start('watch.mjs', place, JSON.stringify(options))
  const messages = told(child)
  await until(() => messages.length === 1)
  expect(messages).toEqual([{ registered: true }])
  const calls = () => messages.slice(1).map(({ numbers }) => numbers)
  return { child, calls }
}

test('eight processes that count together lose no increment', async () => {
  const place = newPlace()
  const store = closing(await openAt(place))
  const seen = await watcher(place)
  const [times, counters] = [40, ['hot', 'hot', 'hot', 'hot', 'hot', 'warm', 'warm', 'cold']]
  const children = counters.map((counter) => {
    const child = start('count.mjs', place, counter, times)
    return { child, messages: told(child) }
  })
  for (const { child } of children) expect(await ended(child)).toBe(0)
  const all = children.flatMap(({ messages }) => messages)
  for (const counter of new Set(counters)) {
    const own = all.filter((message) => message.counter === counter)
    const ordered = own.toSorted((a, b) => a.number - b.number).map(({ value }) => value)
    const processes = counters.filter((each) => each === counter).length
    expect(ordered).toEqual(upTo(processes * times))
  }
  const total = counters.length * times
  expect(all.map(({ number }) => number).toSorted((a, b) => a - b)).toEqual(upTo(total))
  expect(numbersOf(await collect(store.read()))).toEqual(upTo(total))
  await until(() => seen.calls().length >= total)
  expect(seen.calls()).toEqual(upTo(total).map((number) => [number]))
})

test('processes that are killed while they count leave counters that can be counted on', async () => {
  const place = newPlace()
  const store = closing(await openAt(place))
  const seen = await watcher(place)
  const launch = () => {
    const child = start('count.mjs', place, 'hot', 'Infinity')
    return { child, messages: told(child) }
  }
  const running = upTo(8).map(launch)
  const over = []
  for (let round = 0; round < 16; round++) {
    const [{ child, messages }] = running
    const enough = messages.length + 3 + (round % 5)
    await until(() => messages.length >= enough)
    child.kill('SIGKILL')
    over.push(...running.splice(0, 1))
    running.push(launch())
  }
  for (const { child } of running) child.kill('SIGKILL')
  for (const { child } of [...over, ...running]) await ended(child)
  const { records, calls } = await untilAllToldOf(store, seen.calls)
  // What was acknowledged is there, and nobody has counted twice from the same value.
  expect(numbersOf(records)).toEqual(upTo(records.length))
  expect(records.map(({ payload }) => payload.value)).toEqual(upTo(records.length))
  for (const { messages } of [...over, ...running]) {
    for (const { number, value } of messages) expect(value).toBe(number)
  }
  expect(calls.flat(2)).toEqual(upTo(records.length))
})

test('writers that are killed leave whole batches, which all others are told of in one order', async () => {
  const place = newPlace()
  const store = closing(await openAt(place))
  const watchers = await Promise.all([
    watcher(place),
    watcher(place, { pollIntervalMs: 5, maxConnections: 1 })
  ])
  for (let round = 0; round < 5; round++) {
    const writers = upTo(3).map((n) => {
      const child = start('write.mjs', place, `${round} ${n}`)
      return { child, messages: told(child) }
    })
    for (const { child, messages } of writers) {
      await until(() => messages.length > 15)
      child.kill('SIGKILL')
    }
    for (const { child } of writers) await ended(child)
  }
  const { records, calls } = await untilAllToldOf(store, ...watchers.map((each) => each.calls))
  const batches = []
  for (let at = 0; at < records.length; at += records[at].payload.size) {
    const { size } = records[at].payload
    const batch = records.slice(at, at + size)
    expect(batch.map(({ payload }) => payload.index)).toEqual(upTo(size).map((n) => n - 1))
    batches.push(numbersOf(batch))
  }
  expect(batches.flat()).toEqual(upTo(records.length))
  for (const each of calls) expect(each).toEqual(batches)
})

test('what others commit is heard of at once', async () => {
  const place = newPlace()
  const { url, schema } = JSON.parse(place)
  const store = closing(await openAt(place))
  // It would not look for it by itself in time.
  const seen = await watcher(place, { pollIntervalMs: 3_600_000, applicationName: schema })
  const listens =
    "SELECT 1 FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'LISTEN%'"
  await until(async () => (await sql(listens, [schema])).length === 1)
  await until(async () => (await sql(`SELECT 1 FROM "${schema}".stream_stores`)).length === 1)
  await appendBatches(store, 1, 3)
  await until(() => seen.calls().length === 2)
  const other = closing(new FactstrPostgresStore(url, { schema }))
  await Promise.all(upTo(50).map((n) => [store, other][n % 2].append([event('a', n)])))
  await until(() => seen.calls().length === 52)
  expect(seen.calls().flat()).toEqual(upTo(54))

  // The connection that hears is lost: another one takes its place.
  const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = $1 AND query LIKE 'LISTEN%'`
  const pid = async () =>
    (await sql(listens.replace('SELECT 1', 'SELECT pid'), [schema]))[0]?.pid ?? null
  const before = await pid()
  await sql(end, [schema])
  await until(async () => ![before, null].includes(await pid()))
  await store.append([event('a', 'after')])
  await until(() => seen.calls().length === 53)
})

test('what others commit now and then is heard of at once', async () => {
  const place = newPlace()
  const { schema } = JSON.parse(place)
  const store = closing(await openAt(place))
  // Nobody listens yet.
  await appendBatches(store, 1)
  const seen = await watcher(place, { pollIntervalMs: 3_600_000, applicationName: schema })
  const listens =
    "SELECT 1 FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'LISTEN%'"
  await until(async () => (await sql(listens, [schema])).length === 1)
  await until(async () => (await sql(`SELECT 1 FROM "${schema}".stream_stores`)).length === 1)
  let committed = 0
  while (seen.calls().length === 0 && committed < 12) {
    await appendBatches(store, 1)
    committed++
    await sleep(250)
  }
  await until(() => seen.calls().length === committed)
})

test('what others commit is found where nothing can be heard', async () => {
  const place = newPlace()
  const { schema } = JSON.parse(place)
  const proxy = await startProxy(serverUrl())
  let deaf = 0
  const deafen = async () => {
    await proxy.cutOn(({ type, text }) => type === 'Q' && text.startsWith('LISTEN'))
    deaf++
    return deafen()
  }
  void deafen()
  const store = closing(
    new FactstrPostgresStore(proxy.url, { schema, pollIntervalMs: 10, applicationName: schema })
  )
  const live = recorder()
  const durable = recorder(async () => {})
  await store.streamAll(live.handle)
  await store.streamAllDurable({ name: 'model' }, durable.handle)
  await until(() => deaf > 0)
  const other = closing(await openAt(place))
  await appendBatches(other, 1, 2, 3)
  await until(() => live.calls.length === 3 && durable.calls.length === 3)
  const expected = [[1], [2, 3], [4, 5, 6]]
  expect([live.calls, durable.calls]).toEqual([expected, expected])
})
