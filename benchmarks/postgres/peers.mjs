// What the PostgreSQL store is compared with, each as its makers would set it up.

import pg from 'pg'

import { TYPES } from '../events.mjs'
import { decision } from '../loops.mjs'
import { now } from '../measure.mjs'

/** Of 4, 8, 16 and 32 the best for one peer with 64 in flight on two cores, and as good as any for the other. */
const POOL_SIZE = 32

/** One of the peers changes how every client of the process reads numbers: each keeps to `pg`'s own way. */
const types = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 ? String : pg.types.getTypeParser(oid, format)
}

/** What one would write by hand with `pg`: one table without any index, its own group commit. */
export class RawPg {
  #queue = []
  #isBusy = false

  static async open(url) {
    const raw = new RawPg()
    raw.client = new pg.Client({ connectionString: url, types })
    // Whatever is asked of it then fails, and tells.
    raw.client.on('error', () => {})
    await raw.client.connect()
    await raw.client.query(`CREATE TABLE raw_events (
      sequence_number bigint GENERATED ALWAYS AS IDENTITY,
      occurred_at timestamptz NOT NULL DEFAULT now(), event_type text NOT NULL, payload text NOT NULL)`)
    return raw
  }

  async appendSingle({ event_type: type, payload }) {
    const { rows } = await this.client.query({
      name: 'single',
      text: 'INSERT INTO raw_events (event_type, payload) VALUES ($1, $2) RETURNING sequence_number',
      values: [type, JSON.stringify(payload)]
    })
    return rows[0].sequence_number
  }

  /** Whatever was asked for while a statement ran is the next statement. */
  appendGrouped(events) {
    return new Promise((resolve, reject) => {
      this.#queue.push({ events, resolve, reject })
      if (!this.#isBusy) {
        this.#isBusy = true
        setImmediate(() => void this.#work())
      }
    })
  }

  async #work() {
    while (this.#queue.length > 0) {
      const group = this.#queue
      this.#queue = []
      const all = group.flatMap(({ events }) => events)
      try {
        const { rows } = await this.client.query({
          name: 'group',
          text: `INSERT INTO raw_events (event_type, payload)
            SELECT * FROM unnest($1::text[], $2::text[]) RETURNING sequence_number`,
          values: [
            all.map(({ event_type: type }) => type),
            all.map(({ payload }) => JSON.stringify(payload))
          ]
        })
        let at = 0
        for (const { events, resolve } of group) {
          at += events.length
          resolve(rows[at - 1].sequence_number)
        }
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
    }
    this.#isBusy = false
  }

  close() {
    return this.client.end()
  }
}

/**
 * The peers that are installed, opened on a database; for those that are not, a reason:
 * `{ name, missing }` or `{ name, about, append(fact), loop(number of the item, n, items), fill({ from, to },
 * factAt, deadline), close() }`. `fill` tells whether it came to the end.
 */
export function openPeers(url) {
  const open = async ([name, opening]) => {
    try {
      return { name, ...(await opening(url)) }
    } catch (error) {
      return { name, missing: error.message.split('\n')[0] }
    }
  }
  return Promise.all([...OPENINGS].map(open))
}

const OPENINGS = new Map([
  ['@dcb-es/event-store-postgres', openDcb],
  ['@event-driven-io/emmett-postgresql', openEmmett]
])

/** `false` for a conflict, which is an answer: with few items two callers may meet on one. */
async function committed(work, isConflict) {
  try {
    await work
    return true
  } catch (error) {
    if (isConflict(error)) return false
    throw error
  }
}

function poolOf(url, options) {
  const pool = new pg.Pool({ connectionString: url, max: POOL_SIZE, ...options })
  // A connection that ends fails whatever is asked of it.
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** In these stores all events of an item have one type, which a context may name. */
const typeOf = (number) => TYPES[(number * 7) % TYPES.length]

/**
 * Contexts are asked for by tags that the application chooses and one type or more. Each event has the
 * one tag that is asked for, and each question names the one type that its events have.
 */
async function openDcb(url) {
  const { AppendConditionError, Query, Tags } = await import('@dcb-es/event-store')
  const { PostgresEventStore } = await import('@dcb-es/event-store-postgres')
  const pool = poolOf(url, { types })
  // More events than that are copied instead of inserted: that fills it faster.
  const store = new PostgresEventStore({ pool, tablePrefix: 'dcb', copyThreshold: 500 })
  await store.ensureInstalled()
  const tags = (item) => Tags.from([`item:${item}`])
  const eventOf = ({ event_type: type, payload }) => ({
    type,
    tags: tags(payload.item_id),
    data: payload,
    metadata: {}
  })
  return {
    about: 'one tag per event, one type per question',
    append: (fact) => store.append({ events: eventOf(fact) }),
    async loop(number, n, items) {
      const query = Query.fromItems([{ types: [typeOf(number)], tags: tags(`item-${number}`) }])
      const facts = []
      let after
      for await (const { event: fact, position } of store.read(query)) {
        facts.push(fact)
        after = position
      }
      const condition = { failIfEventsMatch: query, ...(after && { after }) }
      return committed(
        store.append({ events: eventOf(decision(facts, n, items)), condition }),
        (error) => error instanceof AppendConditionError
      )
    },
    async fill({ from, to }, factAt, deadline) {
      const step = 1000
      for (let at = from; at < to; at += step) {
        if (now() > deadline) return false
        const count = Math.min(step, to - at)
        await store.append({
          events: Array.from({ length: count }, (_, k) => eventOf(factAt(at + k)))
        })
      }
      return true
    },
    close: () => pool.end()
  }
}

/**
 * Streams that the application chooses, each with its version: an item's events are one stream, which is
 * all that can be asked for.
 */
async function openEmmett(url) {
  const { isExpectedVersionConflictError } = await import('@event-driven-io/emmett')
  const { getPostgreSQLEventStore } = await import('@event-driven-io/emmett-postgresql')
  const pool = poolOf(url)
  const store = getPostgreSQLEventStore(url, {
    schema: { autoMigration: 'None' },
    connectionOptions: { pool }
  })
  await store.schema.migrate()
  const eventOf = ({ event_type: type, payload }) => ({ type, data: payload })
  return {
    about: 'one stream per item',
    append: (fact) => store.appendToStream(fact.payload.order_id, [eventOf(fact)]),
    async loop(number, n, items) {
      const stream = `item-${number}`
      const { events, currentStreamVersion } = await store.readStream(stream)
      // The fact goes into the stream that was read, since versions are of one stream.
      const next = eventOf(decision(events, n, items))
      return committed(
        store.appendToStream(stream, [next], { expectedStreamVersion: currentStreamVersion }),
        isExpectedVersionConflictError
      )
    },
    /** Item by item: the ten events of a stream are one append. */
    async fill({ from, to }, factAt, deadline) {
      const items = (to - from) / 10
      let item = 0
      const lane = async () => {
        while (item < items && now() < deadline) {
          const first = from + item
          const facts = Array.from({ length: 10 }, (_, k) => eventOf(factAt(first + k * items)))
          await store.appendToStream(`item-${from / 10 + item++}`, facts)
        }
      }
      await Promise.all(Array.from({ length: POOL_SIZE }, lane))
      return item === items
    },
    async close() {
      await store.close()
      await pool.end()
    }
  }
}
