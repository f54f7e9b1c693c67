// The server's disk is full, and has space again.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { give } from '../../scripts/postgres/account.mjs'
import { startPostgres } from '../../scripts/postgres/server.mjs'
import { closing, collect, event, numbersOf } from '../stores.mjs'
import { noted, recorder, until, upTo } from '../streams/streams.mjs'

const reasonAgainst = reason()
if (reasonAgainst) console.log(reasonAgainst)

/** Why no file system of a small size can be had here, if so. */
function reason() {
  const what = 'A full disk of the server is not tested: '
  if (process.platform !== 'linux') return `${what}only Linux makes one as small as is needed.`
  if (process.getuid() !== 0) return `${what}only root may mount one.`
  const folder = mkdtempSync(join(tmpdir(), 'factstr-disk-'))
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder])
  if (mounted.status === 0) execFileSync('umount', [folder])
  rmSync(folder, { recursive: true })
  return mounted.status === 0 ? undefined : `${what}nothing can be mounted (${mounted.stderr}).`
}

/** A disk of so many megabytes until the test is over. */
function smallDisk(megabytes) {
  const folder = mkdtempSync(join(tmpdir(), 'factstr-disk-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=755`, 'tmpfs', folder])
  onTestFinished(() => {
    execFileSync('umount', ['--lazy', folder])
    rmSync(folder, { recursive: true })
  })
  const filler = join(folder, 'filler')
  return {
    folder,
    fill() {
      const file = openSync(filler, 'w')
      for (let size = 1 << 20; size >= 512;) {
        try {
          writeSync(file, Buffer.alloc(size))
        } catch (error) {
          if (error.code !== 'ENOSPC') throw error
          size >>= 1
        }
      }
      closeSync(file)
    },
    free: () => rmSync(filler)
  }
}

const large = (id) => [event('large', { id, text: 'x'.repeat(2_000) }), event('small', { id })]

/** Appends until some were refused, and tells which were not. */
async function appendUntilRefused(store) {
  const acknowledged = []
  const refused = []
  for (let round = 0; refused.length < 20; round++) {
    await Promise.all(
      upTo(20).map(async (n) => {
        const id = `${round} ${n}`
        try {
          await store.append(large(id))
          acknowledged.push(id)
        } catch (error) {
          refused.push({ id, error })
        }
      })
    )
  }
  return { acknowledged, refused }
}

async function expectOnly(store, acknowledged, others = []) {
  const records = await collect(store.read())
  expect(numbersOf(records)).toEqual(upTo(records.length))
  const ids = records.map(({ payload }) => payload.id).filter((id) => !others.includes(id))
  expect(ids.toSorted()).toEqual(acknowledged.flatMap((id) => [id, id]).toSorted())
}

test.skipIf(reasonAgainst)('a full disk refuses appends, and nothing else', async () => {
  const server = await startPostgres()
  onTestFinished(() => server.stop())
  const disk = smallDisk(32)
  const location = join(disk.folder, 'data')
  mkdirSync(location)
  give(location)
  await server.query(`CREATE TABLESPACE small LOCATION '${location}'`)
  await server.query('CREATE DATABASE small TABLESPACE small TEMPLATE template0')
  const store = closing(new FactstrPostgresStore(server.urlOf({ database: 'small' })))
  const { calls, handle } = recorder(async () => {})
  const subscription = await store.streamAllDurable({ name: 'model' }, handle)
  await store.append(large('first'))
  disk.fill()
  const { acknowledged, refused } = await appendUntilRefused(store)
  acknowledged.push('first')
  for (const { error } of refused) {
    expect(error.code).toBe('BackendFailure')
    expect(error.message).toContain('No space left on device')
    expect(error.message).toContain('53100')
  }
  await expectOnly(store, acknowledged)
  disk.free()
  await store.append(large('last'))
  acknowledged.push('last')
  await expectOnly(store, acknowledged)
  await until(() => calls.length === acknowledged.length)
  expect(calls.flat()).toEqual(upTo(2 * acknowledged.length))
  expect(noted(subscription.closed).isOver).toBe(false)
})

test.skipIf(reasonAgainst)(
  'a full disk of the journal ends the server, and the store survives it',
  async () => {
    const server = await startPostgres({
      settings: {
        wal_recycle: 'off',
        min_wal_size: '32MB',
        max_wal_size: '48MB',
        wal_init_zero: 'on'
      }
    })
    onTestFinished(() => server.stop())
    await server.halt()
    const disk = smallDisk(96)
    const [journal, elsewhere] = [join(server.dataDir, 'pg_wal'), join(disk.folder, 'wal')]
    cpSync(journal, elsewhere, { recursive: true })
    rmSync(journal, { recursive: true })
    symlinkSync(elsewhere, journal)
    give(elsewhere)
    give(server.dataDir)
    await server.start()
    const store = closing(new FactstrPostgresStore(server.url, { connectTimeoutMs: 1_000 }))
    const { calls, handle } = recorder(async () => {})
    await store.streamAll(handle)
    await store.append(large('first'))
    disk.fill()
    const { acknowledged, refused } = await appendUntilRefused(store)
    acknowledged.push('first')
    disk.free()
    await server.halt('immediate')
    await server.start()
    await store.append(large('last'))
    acknowledged.push('last')
    for (const { error } of refused)
      expect(['BackendFailure', 'OutcomeUnknown']).toContain(error.code)
    const open = refused.filter(({ error }) => error.code === 'OutcomeUnknown').map(({ id }) => id)
    await expectOnly(store, acknowledged, open)
    const [{ n }] = await server.query('SELECT count(*)::int AS n FROM events')
    await until(() => calls.flat().length === n)
    expect(calls.flat()).toEqual(upTo(n))
  }
)
