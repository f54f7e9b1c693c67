// That the servers, and the faults of tests, do what the tests believe.

import { expect, test } from 'vitest'

import { schemaOf, sql } from '../postgres.mjs'

test('a schema of factstr-postgres 0.5.2 can be had', async () => {
  const schema = await schemaOf('legacy-0.5.2.postgres.sql')
  const [{ head }] = await sql(`SELECT max(sequence_number)::int AS head FROM "${schema}".events`)
  expect(head).toBe(13)
  const cursors = await sql(`SELECT * FROM "${schema}".durable_stream_cursors`)
  expect(cursors.map((row) => Number(row.last_processed_sequence_number))).toEqual([0, 4, 11, 11])
})
