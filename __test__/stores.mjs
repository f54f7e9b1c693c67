// The stores that the contract suite runs on.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { onTestFinished } from 'vitest'

import { FactstrMemoryStore, FactstrSqliteStore } from '../index.js'

/** A folder that goes when the test is over, after the stores in it. */
export function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'factstr-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
  return folder
}

/** Closes a store when the test is over. */
export function closing(store) {
  onTestFinished(() => store.close())
  return store
}

/** Each makes an empty store for one test. */
export const stores = [
  { name: 'memory', create: () => closing(new FactstrMemoryStore()) },
  {
    name: 'sqlite',
    create: () => closing(new FactstrSqliteStore(join(temporaryFolder(), 'store.db')))
  }
]

export const event = (event_type, payload) => ({ event_type, payload })

/** A query of one filter with one predicate. */
export const having = (predicate, ...event_types) => ({
  filters: [{ payload_predicates: [predicate], ...(event_types.length > 0 ? { event_types } : {}) }]
})

export const numbersOf = (records) => records.map((record) => Number(record.sequence_number))

export async function collect(iterable) {
  const all = []
  for await (const each of iterable) all.push(each)
  return all
}
