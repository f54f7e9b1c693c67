// A store gave no sign of life for so long that another one took over its stream. It must find out, whatever
// becomes of the answer that tells it so.

import { expect, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { startProxy } from '../faults/proxy.mjs'
import { newSchema, serverUrl, sql } from '../postgres.mjs'
import { closing } from '../stores.mjs'
import { appendBatches, noted, recorder, until } from '../streams/streams.mjs'

const model = { name: 'model' }

/** Calls `then` when the other store has the stream, and lets the first one speak when it has returned. */
async function overtaken(then) {
  const schema = newSchema()
  const proxy = await startProxy(serverUrl())
  const holder = closing(new FactstrPostgresStore(proxy.url, { schema }))
  const heir = closing(new FactstrPostgresStore(serverUrl(), { schema }))
  let upkeep
  void proxy.cutOn(({ direction, type, text, connection }) => {
    if (direction === 'toServer' && type === 'P' && text.includes('factstr_touch')) {
      upkeep = connection
    }
    return false
  })
  const before = recorder()
  const held = await holder.streamAllDurable(model, before.handle)
  await until(() => upkeep)
  const signs = () =>
    sql(`SELECT store::text, touched_at::text AS at FROM "${schema}".stream_stores ORDER BY at`)
  await until(async () => (await signs()).length === 1)
  const [{ store }] = await signs()
  const silence = proxy.holdOn(
    ({ direction, connection }) => direction === 'toServer' && connection === upkeep
  )
  await silence.reached
  const after = recorder()
  const taken = await heir.streamAllDurable(model, after.handle, { ifActive: 'wait' })
  const lastSign = async () => (await signs()).find((sign) => sign.store === store).at
  const later = await then({ schema, proxy, upkeep, holder, lastSign })
  silence.release()
  await later?.()
  const { reason, error } = await held.closed
  expect([reason, error.code]).toEqual(['backend-failed', 'BackendFailure'])
  expect(error.message).toContain('taken over')
  await appendBatches(heir, 1)
  await until(() => after.calls.length === 1)
  expect(noted(taken.closed).isOver).toBe(false)
  expect(before.calls).toEqual([])
}

test('although the answer gets lost', () =>
  overtaken(({ proxy, upkeep }) => {
    const cut = proxy.cutOn(
      ({ direction, connection }) => direction === 'toClient' && connection === upkeep
    )
    return () => cut
  }))

test('although it takes another lease meanwhile', () =>
  overtaken(async ({ holder }) => {
    await holder.streamAllDurable({ name: 'other' }, () => {})
  }))

test('although it can not look at once', () =>
  overtaken(async ({ schema, lastSign }) => {
    const look = `"${schema}".factstr_lost_leases`
    const [{ definition }] = await sql('SELECT pg_get_functiondef($1::regproc) AS definition', [
      look
    ])
    await sql(`CREATE OR REPLACE FUNCTION ${look}(names text[], fencings bigint[], store bigint)
      RETURNS SETOF text LANGUAGE plpgsql AS 'BEGIN RAISE division_by_zero; END'`)
    return async () => {
      // It looks in between.
      for (let signs = 0; signs < 2; signs++) {
        const before = await lastSign()
        await until(async () => (await lastSign()) !== before)
      }
      await sql(definition)
    }
  }))
