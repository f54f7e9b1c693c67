// What an event costs the PostgreSQL store on disk and in the WAL, by how it was appended.
//
// `npm run bench -- postgres-sizes`, with --quick for a tenth of the events. Prints Markdown.

import { parseArgs } from 'node:util'

import { FactstrPostgresStore } from '../index.js'
import { batches, event, itemsOf } from './events.mjs'
import { number } from './report.mjs'
import { openServer } from './server.mjs'

const { values: args } = parseArgs({ options: { quick: { type: 'boolean', default: false } } })
const COUNT = args.quick ? 10_000 : 100_000

/** `append` appends `count` events. */
const WAYS = [
  {
    title: 'batches of 100',
    count: COUNT,
    async append(store, count) {
      for (const batch of batches(count, itemsOf(count))) await store.append(batch)
    }
  },
  {
    title: '64 callers at a time',
    count: COUNT,
    async append(store, count) {
      let next = 0
      const caller = async () => {
        while (next < count) await store.append([event(next++, itemsOf(count))])
      }
      await Promise.all(Array.from({ length: 64 }, caller))
    }
  },
  {
    title: 'one by one',
    count: COUNT / 5,
    async append(store, count) {
      for (let n = 0; n < count; n++) await store.append([event(n, itemsOf(count))])
    }
  }
]

const server = await openServer()
try {
  for (const line of server.header) console.log(`- ${line}`)
  const columns = ['how they were appended', 'events', 'rows of postings per event']
  columns.push('bytes per event: `events`', '`event_postings`', 'together', 'WAL')
  console.log(`\n| ${columns.join(' | ')} |`)
  console.log(`|${' --- |'.repeat(columns.length)}`)
  for (const way of WAYS) await measure(way)
} finally {
  await server.stop()
}

async function measure({ title, count, append }) {
  const schema = `sizes_${WAYS.findIndex((way) => way.title === title)}`
  const store = await FactstrPostgresStore.connect(server.url, { schema })
  try {
    await store.headSequenceNumber()
    // The first change of a page after a checkpoint is logged as a whole page.
    await server.pool.query('CHECKPOINT')
    const before = await walBytes()
    await append(store, count)
    const wal = (await walBytes()) - before
    const { rows } = await server.pool.query(
      `SELECT pg_total_relation_size('${schema}.events')::float8 AS events,
         pg_total_relation_size('${schema}.event_postings')::float8 AS postings,
         (SELECT count(*) FROM "${schema}".event_postings)::float8 AS rows`
    )
    const [{ events, postings, rows: postingRows }] = rows
    const per = (bytes) => number(Math.round(bytes / count))
    const cells = [title, number(count), (postingRows / count).toFixed(1), per(events)]
    cells.push(per(postings), per(events + postings), per(wal))
    console.log(`| ${cells.join(' | ')} |`)
  } finally {
    await store.close()
  }
}

async function walBytes() {
  const { rows } = await server.pool.query(
    `SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 AS bytes`
  )
  return rows[0].bytes
}
