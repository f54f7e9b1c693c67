// One PostgreSQL server for all suites. Its URL goes to them, and to the processes that they start, by
// the environment. Without a server the suites that need one fail, and say why; the others go on.

import pg from 'pg'

import { startPostgres } from '../scripts/postgres/server.mjs'

export default async function setup() {
  const given = process.env.FACTSTR_TEST_POSTGRES_URL
  if (given) {
    await ask(given)
    return
  }
  try {
    const server = await startPostgres()
    process.env.FACTSTR_TEST_POSTGRES_URL = server.url
    return async () => {
      delete process.env.FACTSTR_TEST_POSTGRES_URL
      await server.stop()
    }
  } catch (error) {
    process.env.FACTSTR_TEST_POSTGRES_FAILURE = error.message
  }
}

async function ask(connectionString) {
  const client = new pg.Client({ connectionString })
  try {
    await client.connect()
    await client.query('SELECT 1')
  } catch (error) {
    delete process.env.FACTSTR_TEST_POSTGRES_URL
    process.env.FACTSTR_TEST_POSTGRES_FAILURE =
      `The server of FACTSTR_TEST_POSTGRES_URL can't be used (${error.message || error.code}). ` +
      'Start it, or unset the variable: then the tests start a server of their own.'
  } finally {
    await client.end().catch(() => {})
  }
}
