// How processes with PostgreSQL stores end, whatever their server does.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { text } from 'node:stream/consumers'

import { expect, onTestFinished, test } from 'vitest'

import { startPostgres } from '../../scripts/postgres/server.mjs'
import { startProxy } from '../faults/proxy.mjs'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { message, start } from '../processes/processes.mjs'
import { until } from '../streams/streams.mjs'

const placeOf = (url, schema = newSchema()) => JSON.stringify({ kind: 'postgres', url, schema })

/** Runs a program of postgres-life.mjs. */
function launch(name, place) {
  const stdio = ['ignore', 'pipe', 'pipe', 'ipc']
  const child = start('postgres-life.mjs', name, place, { stdio })
  const over = Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]).then(
    ([output, errors, [code, signal]]) => ({ output: output.trim(), errors, code: signal ?? code })
  )
  return { child, over }
}

test('stores that are never used keep nothing alive, and connect to nobody', async () => {
  let connections = 0
  const silent = createServer(() => {
    connections++
  })
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  onTestFinished(() => silent.close())
  const { over } = launch('unused', placeOf(`postgresql://u@127.0.0.1:${silent.address().port}/d`))
  expect(await over).toEqual({ output: '50', errors: '', code: 0 })
  expect(connections).toBe(0)
})

test('idle connections keep nothing alive, and go with the process', async () => {
  const schema = newSchema()
  const url = new URL(serverUrl())
  url.searchParams.set('application_name', schema)
  const { over } = launch('idle', placeOf(url.href, schema))
  expect(await over).toEqual({ output: 'idle', errors: '', code: 0 })
  const sessions = 'SELECT 1 FROM pg_stat_activity WHERE application_name = $1'
  await until(async () => (await sql(sessions, [schema])).length === 0)
})

test('a process waits for an append that is not answered, but not for ever', async () => {
  const proxy = await startProxy(serverUrl())
  const { child, over } = launch('appending', placeOf(proxy.url))
  await message(child)
  proxy.pause()
  child.send('go')
  expect(await over).toEqual({ output: 'OutcomeUnknown', errors: '', code: 0 })
})

test('process.exit does not wait for it', async () => {
  const proxy = await startProxy(serverUrl())
  const { child, over } = launch('exiting', placeOf(proxy.url))
  await message(child)
  proxy.pause()
  child.send('go')
  expect(await over).toEqual({ output: '', errors: '', code: 7 })
})

test('nor does the end of a worker', async () => {
  const proxy = await startProxy(serverUrl())
  const { child, over } = launch('workers', placeOf(proxy.url))
  await message(child)
  proxy.pause()
  child.send('go')
  expect(await over).toEqual({ output: 'terminated', errors: '', code: 0 })
})

test('a server that dies ends no process', async () => {
  const server = await startPostgres()
  onTestFinished(() => server.stop())
  const { child, over } = launch('surviving', placeOf(server.url, 'public'))
  await message(child)
  await server.kill()
  await server.start()
  child.send('go')
  expect(await over).toEqual({ output: 'last 2', errors: '', code: 0 })
})

test('what a process does not handle tells no password', async () => {
  const proxy = await startProxy(serverUrl())
  const { child, over } = launch('unhandled', placeOf(proxy.url))
  await message(child)
  proxy.refuse()
  proxy.cut()
  child.send('go')
  const { errors, code } = await over
  expect(code).toBe(1)
  expect(errors).toContain('BackendFailure')
  const { password } = new URL(serverUrl())
  for (const secret of [password, decodeURIComponent(password)]) {
    expect(errors).not.toContain(secret)
  }
})
