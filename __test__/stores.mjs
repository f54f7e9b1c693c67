// The stores that the contract suite runs on.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { onTestFinished } from 'vitest'

import { newSchema, serverUrl } from './postgres.mjs'
import { storeAt } from './processes/place.mjs'

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

const kind = (name, placeOf) => {
  const place = () => JSON.stringify({ kind: name, ...placeOf() })
  return { name, place, create: () => closing(storeAt(place())) }
}

/** Each makes an empty store for one test, or a place for one: see processes/place.mjs. */
export const stores = [
  kind('memory', () => ({})),
  kind('sqlite', () => ({ path: join(temporaryFolder(), 'store.db') })),
  kind('postgres', () => ({ url: serverUrl(), schema: newSchema() }))
]

/** Those whose data outlive the store, and which several stores and processes share. */
export const lasting = stores.filter(({ name }) => name !== 'memory')

/** Counts the turns of the event loop until the test is over; returns how many there have been. */
export function countTurns() {
  let turns = 0
  let over = false
  const count = () => {
    turns++
    if (!over) setImmediate(count)
  }
  setImmediate(count)
  onTestFinished(() => {
    over = true
  })
  return () => turns
}

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
