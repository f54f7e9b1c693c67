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
