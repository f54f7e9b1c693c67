// What happens to processes of release 0.5.2 that go on beside a migrated store.

import { expect, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { schemaOf, serverUrl, sql } from '../postgres.mjs'
import { closing, collect, event } from '../stores.mjs'

test('an old process that still runs can append nothing that conditions would not see', async () => {
  const schema = await schemaOf('legacy-0.5.2.postgres.sql')
  const store = closing(await FactstrPostgresStore.connect(serverUrl(), { schema }))
  const before = await collect(store.read())
  expect(before).toHaveLength(13)
  // As the old crate did it.
  const append = `INSERT INTO "${schema}".events (sequence_number, occurred_at, event_type, payload)
    VALUES (14, now(), 'late', '{"by":"an old process"}'::jsonb)`
  await expect(sql(append)).rejects.toThrow('payload')
  expect(await collect(store.read())).toEqual(before)
  const { append_result: appended } = await store.appendIf([event('next', {})], {}, 13n)
  expect(appended.first_sequence_number).toBe(14n)
})
