// Where the data of a store is, as a text that one process hands to another.

import * as factstr from '../../index.js'

/** A store of the place, not opened yet. */
export function storeAt(place, options = {}) {
  const { kind, path, url, schema } = JSON.parse(place)
  if (kind === 'memory') return new factstr.FactstrMemoryStore()
  if (kind === 'sqlite') return new factstr.FactstrSqliteStore(path, options)
  return new factstr.FactstrPostgresStore(url, { ...options, schema })
}

/** The same, opened now. */
export async function openAt(place, options = {}) {
  const { kind, path, url, schema } = JSON.parse(place)
  if (kind === 'memory') return new factstr.FactstrMemoryStore()
  if (kind === 'sqlite') return factstr.FactstrSqliteStore.open(path, options)
  return factstr.FactstrPostgresStore.connect(url, { ...options, schema })
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
