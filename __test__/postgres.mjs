// The PostgreSQL server of all suites: global-setup.mjs has started it, unless it was there before.

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'

import pg from 'pg'
import { onTestFinished } from 'vitest'

const fixtures = new URL('../tests/fixtures/', import.meta.url)

/** A database of the server, which tests share: each keeps to a schema of its own. */
export function serverUrl() {
  const { FACTSTR_TEST_POSTGRES_URL: url, FACTSTR_TEST_POSTGRES_FAILURE: reason } = process.env
  if (url) return url
  throw new Error(reason ?? 'There is no PostgreSQL server: run the tests with `npx vitest run`.')
}

let pool

/** Runs one statement as the owner of the server, and resolves to its rows. */
export async function sql(text, values) {
  pool ??= new pg.Pool({ connectionString: serverUrl(), max: 2, allowExitOnIdle: true })
  const { rows } = await pool.query(text, values)
  return rows
}

/** The name of a schema that is not there yet; after the test it is gone, with all whose names go on. */
export function newSchema() {
  const schema = `test ${randomBytes(8).toString('hex')}`
  onTestFinished(async () => {
    const found = await sql('SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)', [
      schema
    ])
    for (const { nspname: name } of found) {
      await sql(`DROP SCHEMA ${pg.escapeIdentifier(name)} CASCADE`)
    }
  })
  return schema
}

/** Runs a file of `tests/fixtures` in a new schema, and resolves to its name. */
export async function schemaOf(fixture) {
  const schema = newSchema()
  const client = new pg.Client({ connectionString: serverUrl() })
  await client.connect()
  try {
    await client.query(`CREATE SCHEMA ${pg.escapeIdentifier(schema)}`)
    await client.query(`SET search_path TO ${pg.escapeIdentifier(schema)}`)
    await client.query(readFileSync(new URL(fixture, fixtures), 'utf8'))
  } finally {
    await client.end()
  }
  return schema
}
