// Where the data of a store is, as a text that one process hands to another.

import { FactstrMemoryStore, FactstrPostgresStore, FactstrSqliteStore } from '../../index.js'

/** A store of the place, not opened yet. */
export function storeAt(place, options = {}) {
  const { kind, path, url, schema } = JSON.parse(place)
  if (kind === 'memory') return new FactstrMemoryStore()
  if (kind === 'sqlite') return new FactstrSqliteStore(path, options)
  return new FactstrPostgresStore(url, { ...options, schema })
}

/** The same, opened now. */
export async function openAt(place, options = {}) {
  const { kind, path, url, schema } = JSON.parse(place)
  if (kind === 'memory') return new FactstrMemoryStore()
  if (kind === 'sqlite') return FactstrSqliteStore.open(path, options)
  return FactstrPostgresStore.connect(url, { ...options, schema })
}

/** Another place beside one that lasts; it goes with it. */
export function besides(place, name) {
  const { path, schema, ...rest } = JSON.parse(place)
  return JSON.stringify({
    ...rest,
    ...(path && { path: `${path}-${name}` }),
    ...(schema && { schema: `${schema}-${name}` })
  })
}
