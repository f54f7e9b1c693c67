import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import { expect, test } from 'vitest'

import { FactstrSqliteStore } from '../../index.js'
import { ended, message, start } from '../processes/processes.mjs'
import { closing, collect, temporaryFolder } from '../stores.mjs'

/** Compiles the library that makes flushing fail; `undefined` where that can't be done. */
function failingSync(folder) {
  if (process.platform !== 'linux') return undefined
  const library = `${folder}/fail_sync.so`
  const source = fileURLToPath(new URL('fail_sync.c', import.meta.url))
  const compiler = process.env.CC ?? 'cc'
  const { status } = spawnSync(compiler, ['-shared', '-fPIC', '-o', library, source, '-ldl'])
  return status === 0 ? library : undefined
}

/** How an append ends while flushing fails, and what is stored after a crash. */
async function appendWhileFlushingFails(content) {
  const folder = temporaryFolder()
  const library = failingSync(folder)
  if (library === undefined) return undefined
  const [path, flag] = [`${folder}/store.db`, `${folder}/flag`]
  const env = { ...process.env, LD_PRELOAD: library, FAIL_SYNC: flag }
  const child = start('failing-sync.mjs', path, flag, content, { env })
  const outcome = await message(child)
  await ended(child)
  const store = closing(await FactstrSqliteStore.open(path))
  const stored = (await collect(store.read())).map(({ event_type: type }) => type)
  const { last_sequence_number: last } = await store.append([{ event_type: 'on', payload: null }])
  expect(last).toBe(BigInt(stored.length + 1))
  return { outcome, stored }
}

test('what was refused because the disk could not flush is not there after a crash', async (context) => {
  const result = await appendWhileFlushingFails('')
  if (result === undefined) return context.skip()
  expect(result).toEqual({ outcome: 'BackendFailure', stored: ['first'] })
})

test('a disk that never flushes again leaves the outcome open, and says so', async (context) => {
  const result = await appendWhileFlushingFails('always')
  if (result === undefined) return context.skip()
  expect(result.outcome).toBe('OutcomeUnknown')
  expect(result.stored[0]).toBe('first')
})

test('what a condition has seen of a group that was refused is seen by nobody else', async (context) => {
  const folder = temporaryFolder()
  const library = failingSync(folder)
  if (library === undefined) return context.skip()
  const [path, flag] = [`${folder}/store.db`, `${folder}/flag`]
  const env = { ...process.env, LD_PRELOAD: library, FAIL_SYNC: flag }
  const child = start('failing-group.mjs', path, flag, { env })
  const result = await message(child)
  await ended(child)
  expect(result).toEqual({
    ends: ['BackendFailure', 'BackendFailure'],
    number: 2,
    found: [[], [[2, { is: 'next' }]]]
  })
})
