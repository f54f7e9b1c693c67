// What one would write by hand with `pg`: one table, its own group commit.

import pg from 'pg'

import { decision } from '../loops.mjs'
import { POOL_SIZE, poolOf, types } from './pool.mjs'
import { versionOf } from './versions.mjs'

/** Whatever was asked for while a statement ran is the next statement. */
class GroupCommit {
  #queue = []
  #isBusy = false
  #write

  /** `write(events)` resolves to their rows. */
  constructor(write) {
    this.#write = write
  }

  append(events) {
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
      try {
        const rows = await this.#write(group.flatMap(({ events }) => events))
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
}

async function connected(url) {
  const client = new pg.Client({ connectionString: url, types })
  // Whatever is asked of it then fails, and tells.
  client.on('error', () => {})
  await client.connect()
  return client
}

const parsed = ({ payload, ...row }) => ({ ...row, payload: JSON.parse(payload) })

/** One connection that writes, and a pool that reads. `indexed`: by the item, in a column of its own. */
async function openTable(url, table, { indexed }) {
  const client = await connected(url)
  const pool = poolOf(url, { types })
  await client.query(`CREATE TABLE IF NOT EXISTS ${table} (
    sequence_number bigint GENERATED ALWAYS AS IDENTITY${indexed ? ' PRIMARY KEY' : ''},
    occurred_at timestamptz NOT NULL DEFAULT now(), event_type text NOT NULL, payload text NOT NULL
    ${indexed ? ', item text' : ''})`)
  if (indexed) {
    await client.query(
      `CREATE INDEX IF NOT EXISTS ${table}_item ON ${table} (item, sequence_number)`
    )
  }
  const [column, value] = indexed ? [', item', `, ($2::text::json ->> 'item_id')`] : ['', '']
  const values = ({ event_type: type, payload }) => [type, JSON.stringify(payload)]
  const single = {
    name: 'single',
    text: `INSERT INTO ${table} (event_type, payload${column}) VALUES ($1, $2::text${value}) RETURNING sequence_number`
  }
  const group = new GroupCommit(async (events) => {
    const all = events.map(values)
    const { rows } = await client.query({
      name: 'group',
      text: `INSERT INTO ${table} (event_type, payload${column})
        SELECT type, payload ${indexed ? `, payload::json ->> 'item_id'` : ''}
        FROM unnest($1::text[], $2::text[]) u (type, payload) RETURNING sequence_number`,
      values: [all.map(([type]) => type), all.map(([, payload]) => payload)]
    })
    return rows
  })
  const read = async (connection, item) => {
    const { rows } = await connection.query({
      name: 'read',
      text: `SELECT * FROM ${table} WHERE item = $1 ORDER BY sequence_number`,
      values: [`item-${item}`]
    })
    return rows.map(parsed)
  }
  return {
    client,
    pool,
    group,
    read,
    appendAlone: (fact) => client.query({ ...single, values: values(fact) }),
    async close() {
      await client.end()
      await pool.end()
    }
  }
}

const version = versionOf('pg')

export const sides = [
  {
    name: `pg ${version} by hand`,
    kind: 'limit',
    store: 'postgres',
    tables: `relname = 'raw_events'`,
    about: 'one table without any index; one connection with a group commit',
    async open({ url }) {
      const raw = await openTable(url, 'raw_events', { indexed: false })
      return {
        appendAlone: ([fact]) => raw.appendAlone(fact),
        append: (facts) => raw.group.append(facts),
        close: () => raw.close()
      }
    }
  },
  {
    name: `pg ${version} by hand, indexed, no condition`,
    kind: 'limit',
    store: 'postgres',
    tables: `relname = 'raw_indexed'`,
    about:
      `one indexed column with what is asked for; loops read on a pool of ${POOL_SIZE} (one caller: on the ` +
      'connection that writes), and append without any condition',
    async open({ url }) {
      const raw = await openTable(url, 'raw_indexed', { indexed: true })
      return {
        fillOnly: true,
        append: (facts) => raw.group.append(facts),
        async loopAlone(item, n, items) {
          await raw.appendAlone(decision(await raw.read(raw.client, item), n, items))
        },
        async loop(item, n, items) {
          await raw.group.append([decision(await raw.read(raw.pool, item), n, items)])
        },
        query: async (item) => (await raw.read(raw.pool, item)).length,
        close: () => raw.close()
      }
    }
  }
]
