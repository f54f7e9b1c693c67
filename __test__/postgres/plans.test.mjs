// Statistics of a young table must not decide how a large one is read.

import { expect, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { closing, collect, event, having, numbersOf } from '../stores.mjs'

async function open() {
  const schema = newSchema()
  const store = closing(await FactstrPostgresStore.connect(serverUrl(), { schema }))
  const analyse = () => sql(`VACUUM ANALYZE "${schema}".events, "${schema}".event_postings`)
  return { schema, store, analyse }
}

test.each([1, 2, 3, 40])('a table analysed at %i events is read in order', async (young) => {
  const { store, analyse } = await open()
  await store.append(Array.from({ length: young }, (_, n) => event('x', { n })))
  await analyse()
  await store.append([event('x', {}), event('x', {}), event('x', {}), event('x', {})])
  const all = Array.from({ length: young + 4 }, (_, n) => n + 1)
  const query = { filters: [{ event_types: ['x'] }] }
  expect(numbersOf(await collect(store.read(query)))).toEqual(all)
  const backwards = await collect(store.read(query, { backwards: true }))
  expect(numbersOf(backwards)).toEqual(all.toReversed())
})

test('the version of a context is its newest match, whatever was analysed', async () => {
  const { store, analyse } = await open()
  const match = event('x', { l: [{ a: 1, b: 2 }] })
  // Has all that is looked up, and is none.
  const near = event('x', { l: [{ a: 1 }, { b: 2 }] })
  for (let n = 0; n < 3; n++) await store.append([match])
  await analyse()
  for (let n = 0; n < 3; n++) await store.append([near])
  const query = having({ l: [{ a: 1, b: 2 }] })
  const first = await store.query(query, { limit: 1 })
  expect(first.current_context_version).toBe(3n)
  const later = await store.query({ ...query, min_sequence_number: 5n })
  expect(later.current_context_version).toBe(3n)
  const { conflict } = await store.appendIf([match], query, 1n)
  expect(conflict).toEqual({ expected_context_version: 1n, actual_context_version: 3n })
})

test('a store whose readers all wait still shows that it lives', async () => {
  const schema = newSchema()
  const store = closing(
    await FactstrPostgresStore.connect(serverUrl(), { schema, maxConnections: 1 })
  )
  await store.append([event('x', {})])
  await store.streamAllDurable({ name: 'model' }, () => {})
  const pg = await import('pg')
  const locking = new pg.default.Client({ connectionString: serverUrl() })
  await locking.connect()
  try {
    await locking.query(`BEGIN; LOCK TABLE "${schema}".events IN ACCESS EXCLUSIVE MODE`)
    const waiting = store.query({})
    const signs = `SELECT touched_at > $1::timestamptz + interval '2 seconds' AS lives
      FROM "${schema}".stream_stores`
    const [{ now }] = await sql('SELECT clock_timestamp()::text AS now')
    await expect
      .poll(async () => (await sql(signs, [now]))[0].lives, { timeout: 20_000 })
      .toBe(true)
    await locking.query('COMMIT')
    expect((await waiting).event_records).toHaveLength(1)
  } finally {
    await locking.end()
  }
})
