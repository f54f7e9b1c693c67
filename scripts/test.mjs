// Every suite: Rust, vitest on every store, types.

import { spawnSync } from 'node:child_process'

import { main, MissingRequirement, requireRust, root, run, setUp } from './setup.mjs'

main(async () => {
  requireRust()
  setUp()
  const server = await testServer()
  if (spawnSync('cargo', ['nextest', '--version'], { cwd: root, stdio: 'ignore' }).status === 0) {
    run('Rust tests', 'cargo', ['nextest', 'run', '--no-fail-fast'])
    run('Rust examples in the documentation', 'cargo', ['test', '--doc'])
  } else {
    run('Rust tests', 'cargo', ['test', '--no-fail-fast'])
  }
  run('JavaScript tests', 'npx', ['vitest', 'run'])
  run('Types, as a Node.js module sees them', 'npx', ['tsc', '-p', '__test__/types'])
  const bundler = ['-p', '__test__/types', '--module', 'esnext', '--moduleResolution', 'bundler']
  run('Types, as a bundler sees them', 'npx', ['tsc', ...bundler])
  await server?.stop()
})

/** One PostgreSQL for every suite, unless there is one already. It ends with this process. */
async function testServer() {
  if (process.env.FACTSTR_TEST_POSTGRES_URL) return undefined
  // Needs what setUp installs.
  const { startPostgres } = await import('./postgres/server.mjs')
  try {
    const server = await startPostgres()
    process.env.FACTSTR_TEST_POSTGRES_URL = server.url
    return server
  } catch (error) {
    throw new MissingRequirement(error.message, { cause: error })
  }
}
