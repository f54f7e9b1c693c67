import pg from 'pg'

/** Of 4, 8, 16 and 32 the best for one peer with 64 in flight on two cores, and as good as any for the other. */
export const POOL_SIZE = 32

/** One of the peers changes how every client of the process reads numbers: each keeps to `pg`'s own way. */
export const types = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 ? String : pg.types.getTypeParser(oid, format)
}

export function poolOf(url, options) {
  const pool = new pg.Pool({ connectionString: url, max: POOL_SIZE, ...options })
  // A connection that ends fails whatever is asked of it.
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** `false` for a conflict, which is an answer: with few items two callers may meet on one. */
export async function committed(work, isConflict) {
  try {
    await work
    return true
  } catch (error) {
    if (isConflict(error)) return false
    throw error
  }
}
