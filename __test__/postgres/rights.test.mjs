// The rights that the guide for operators gives to roles are those that a store needs.

import { readFileSync } from 'node:fs'

import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { closing, event, having } from '../stores.mjs'
import { recorder, until } from '../streams/streams.mjs'

const guide = readFileSync(new URL('../../docs/postgres.md', import.meta.url), 'utf8')

/** The statements of the guide that grant something to a role, for a schema of the test. */
function granted(role, schema) {
  const blocks = [...guide.matchAll(/```sql\n(.*?)```/gs)].map(([, block]) => block)
  const lines = blocks.join('').split('\n')
  const grants = lines.filter((line) => line.startsWith('GRANT') && line.endsWith(` TO ${role};`))
  expect(grants).not.toEqual([])
  const name = pg.escapeIdentifier(schema)
  return grants
    .join('\n')
    .replaceAll('SCHEMA facts', `SCHEMA ${name}`)
    .replaceAll(/(?<![\w.])facts\./g, `${name}.`)
}

/** A role of the guide, and a URL with which it logs in. */
async function roleOf(guided, schema) {
  const role = `${guided} ${schema}`
  const name = pg.escapeIdentifier(role)
  await sql(`CREATE ROLE ${name} LOGIN PASSWORD 'secret'`)
  onTestFinished(async () => {
    await sql(`DROP OWNED BY ${name} CASCADE`)
    await sql(`DROP ROLE ${name}`)
  })
  const end = ` TO ${guided};`
  await sql(granted(guided, schema).replaceAll(end, ` TO ${name};`))
  const url = new URL(serverUrl())
  url.username = encodeURIComponent(role)
  url.password = 'secret'
  return { role, url: url.href }
}

async function withOwner() {
  const schema = newSchema()
  const owner = closing(await FactstrPostgresStore.connect(serverUrl(), { schema }))
  await owner.append([event('a', { n: 1 }), event('a', { n: 2 })])
  return schema
}

async function sessionOf({ url }) {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  onTestFinished(() => client.end())
  return client
}

test('a role that only runs a store can do all that a store does', async () => {
  const schema = await withOwner()
  const { url } = await roleOf('shop_app', schema)
  const [store, other] = [1, 2].map(() => closing(new FactstrPostgresStore(url, { schema })))
  const context = having({ n: 2 })
  const { current_context_version: version } = await store.query(context)
  expect(version).toBe(2n)
  // Every 64th commit clears up.
  for (let n = 0; n < 130; n++) await store.append([event('b', { n: -1 })])
  expect((await store.appendIf([event('a', { n: 2 })], context, version)).conflict).toBeNull()
  expect((await store.appendIf([event('a', { n: 2 })], context, version)).conflict).not.toBeNull()
  const { calls, handle } = recorder()
  const stream = await store.streamToDurable({ name: 'all' }, context, handle)
  await other.append([event('a', { n: 2 })])
  await until(() => calls.length === 3)
  await stream.unsubscribe()
  expect(await store.listDurableStreams()).toMatchObject([{ name: 'all', active: false }])
  await store.resetDurableStream({ name: 'all' })
  await store.deleteDurableStream({ name: 'all' })
  await store.close()
})

test('a role that only runs a store finds out what became of an append', async () => {
  const schema = await withOwner()
  const { role, url } = await roleOf('shop_app', schema)
  const store = closing(new FactstrPostgresStore(url, { schema }))
  await store.append([event('a', 'first')])
  const holder = new pg.Client({ connectionString: serverUrl() })
  await holder.connect()
  const events = `${pg.escapeIdentifier(schema)}.events`
  await holder.query('SELECT pg_advisory_lock(1717658484, $1::regclass::oid::integer)', [events])
  const append = store.append([event('a', 'second')])
  let found
  await until(async () => {
    found = await sql(
      `SELECT pid FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'`,
      [role]
    )
    return found.length === 1
  })
  await sql('SELECT pg_terminate_backend($1)', [found[0].pid])
  await holder.end()
  expect(await append).toMatchObject({ first_sequence_number: 4n })
  expect(await store.headSequenceNumber()).toBe(4n)
})

test('a role that only runs a store can change no fact and no table', async () => {
  const schema = await withOwner()
  const client = await sessionOf(await roleOf('shop_app', schema))
  const name = pg.escapeIdentifier(schema)
  for (const statement of [
    `UPDATE ${name}.events SET payload_json = '{}'`,
    `DELETE FROM ${name}.events`,
    `TRUNCATE ${name}.events`,
    `DELETE FROM ${name}.event_postings`,
    `UPDATE ${name}.store_metadata SET value = '0'`,
    `DROP TABLE ${name}.events`,
    `CREATE TABLE ${name}.another (n integer)`
  ]) {
    await expect(client.query(statement), statement).rejects.toMatchObject({ code: '42501' })
  }
})

test('a role that only reads needs the view alone', async () => {
  const schema = await withOwner()
  const client = await sessionOf(await roleOf('shop_reports', schema))
  const name = pg.escapeIdentifier(schema)
  const { rows } = await client.query(`SELECT payload -> 'n' AS n FROM ${name}.facts ORDER BY 1`)
  expect(rows).toEqual([{ n: 1 }, { n: 2 }])
  await expect(client.query(`TABLE ${name}.events`)).rejects.toMatchObject({ code: '42501' })
})

test('a role that only watches can ask what the guide asks', async () => {
  const schema = await withOwner()
  const client = await sessionOf(await roleOf('shop_monitor', schema))
  const name = pg.escapeIdentifier(schema)
  const [, queries] = /## Monitoring\n\n```sql\n(.*?)```/s.exec(guide)
  const asked = queries
    .replaceAll(/(?<![\w.])facts\./g, `${name}.`)
    .replaceAll("'facts'::regnamespace", `'${name}'::regnamespace`)
    .replaceAll("'facts'", pg.escapeLiteral(schema))
  const answers = await client.query(asked)
  expect(answers).toHaveLength(7)
  expect(answers[0].rows).toEqual([{ max: '2' }])
  expect(answers[5].rows).toHaveLength(7)
  await expect(client.query(`TABLE ${name}.events`)).rejects.toMatchObject({ code: '42501' })
})
