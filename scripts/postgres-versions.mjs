// The contract, concurrency and streams of the PostgreSQL store, on the oldest server that it supports
// and on the newest: or on the major versions given as arguments.

import { main, run, setUp } from './setup.mjs'

const OLDEST = 13
const NEWEST = 18
const SUITES = ['__test__/contract', '__test__/streams', '__test__/concurrency.test.mjs']

main(() => {
  setUp()
  const given = process.argv.slice(2).map(Number)
  const { FACTSTR_TEST_POSTGRES_URL: _, ...env } = process.env
  for (const version of given.length > 0 ? given : [OLDEST, NEWEST]) {
    run(
      `PostgreSQL ${version}`,
      'npx',
      ['vitest', 'run', ...SUITES, '--testNamePattern', 'postgres'],
      { env: { ...env, FACTSTR_TEST_POSTGRES_VERSION: String(version) } }
    )
  }
})
