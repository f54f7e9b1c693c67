// Stores that can't be opened tell each operation, whenever it is asked for.

import { expect, test } from 'vitest'

import { FactstrPostgresStore, FactstrSqliteStore } from '../index.js'

test.each([
  ['SQLite', () => new FactstrSqliteStore(5)],
  ['PostgreSQL', () => new FactstrPostgresStore(5)],
  ['PostgreSQL, by an option', () => new FactstrPostgresStore('postgres://h/d', { schema: '' })]
])('a %s store with a wrong argument refuses every operation', async (_, make) => {
  const store = make()
  const refused = async (operation) => {
    await expect(operation).rejects.toMatchObject({ code: 'InvalidOptions' })
  }
  const together = [store.headSequenceNumber(), store.query({}), store.streamAll(() => {})]
  for (const operation of together) await refused(operation)
  await refused(store.headSequenceNumber())
  await refused(store.append([{ event_type: 'x', payload: 1 }]))
  await store.close()
})

test.each(['ca', 'cert', 'key'])('tls.%s is text or the bytes of a file', async (name) => {
  for (const wrong of [5, ['-----BEGIN'], {}, new Uint16Array(4)]) {
    const store = new FactstrPostgresStore('postgres://h/d', { tls: { [name]: wrong } })
    const message = `options.tls.${name}: must be a string or a Uint8Array`
    await expect(store.query()).rejects.toMatchObject({ code: 'InvalidOptions', message })
  }
  const tls = { ca: Buffer.of(), cert: Buffer.of(), key: Buffer.of() }
  const store = new FactstrPostgresStore('postgres://127.0.0.1:1/d', { tls })
  await expect(store.query()).rejects.toThrow(/^options\.tls\.ca: it has no certificate/)
})
