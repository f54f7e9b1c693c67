// A primary with a synchronous standby behind one URL of both, and the standby takes over.

import { describe, expect, onTestFinished, test } from 'vitest'

import { FactstrPostgresStore } from '../../index.js'
import { startReplicated } from '../../scripts/postgres/replicated.mjs'
import { closing, event } from '../stores.mjs'
import { noted, recorder, until } from '../streams/streams.mjs'
import { startLoad } from './load.mjs'

async function pairOfItsOwn() {
  const pair = await startReplicated()
  onTestFinished(() => pair.stop())
  return pair
}

const open = (pair, options) =>
  closing(new FactstrPostgresStore(pair.url, { connectTimeoutMs: 60_000, ...options }))

const waitsForStandby = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
const payloads = async (server) => {
  const rows = await server.query(
    'SELECT payload_json AS payload FROM events ORDER BY sequence_number'
  )
  return rows.map(({ payload }) => JSON.parse(payload))
}

describe('a standby that takes over', () => {
  test.each(['kill -9', 'immediate', 'fast'])(
    'from a primary that ends (%s) has all that was acknowledged, once',
    async (how) => {
      const pair = await pairOfItsOwn()
      const stores = [open(pair), open(pair)]
      const load = await startLoad(stores)
      await load.more(60)
      if (how === 'kill -9') await pair.primary.kill()
      else await pair.primary.halt(how)
      await pair.promote()
      await load.more(60)
      await load.stop()
      const { failed } = await load.check(stores[0])
      expect(failed).toEqual([])
      for (const { subscription } of load.streams) {
        expect(noted(subscription.closed).isOver).toBe(false)
      }
    }
  )

  test('while the primary still runs gets the writes when that has become a standby', async () => {
    const pair = await pairOfItsOwn()
    const store = open(pair)
    await store.append([event('a', 1)])
    // It refuses writes from now on, though it has ended no connection.
    await pair.setSynchronous(false)
    await pair.primary.query('ALTER SYSTEM SET default_transaction_read_only = on')
    await pair.primary.query('SELECT pg_reload_conf()')
    const { calls, handle } = recorder()
    await pair.promote()
    await store.append([event('a', 2)])
    await store.streamAll(handle)
    await store.append([event('a', 3)])
    await until(() => calls.length === 1)
    expect(await payloads(pair.standby)).toEqual([1, 2, 3])
    expect(await payloads(pair.primary)).toEqual([1])
  })
})

describe('an append that waits for the standby', () => {
  test('is not acknowledged because its connection was ended', async () => {
    const pair = await pairOfItsOwn()
    const { primary, standby } = pair
    const store = open(pair)
    await store.append([event('a', 1)])
    await standby.halt()
    const append = store.append([event('a', 2)])
    const state = noted(append)
    await until(async () => (await primary.query(waitsForStandby)).length === 1)
    const [{ pid }] = await primary.query(waitsForStandby)
    await primary.query('SELECT pg_terminate_backend($1)', [pid])
    // Committed on the primary by now, and visible: the store that looks for it waits as well.
    await until(async () => {
      const waiting = await primary.query(waitsForStandby)
      return state.isOver || waiting.some((each) => each.pid !== pid)
    })
    expect(state.isOver).toBe(false)
    await standby.start()
    expect((await append).last_sequence_number).toBe(2n)
    await primary.kill()
    await pair.promote()
    await store.append([event('a', 3)])
    expect(await payloads(standby)).toEqual([1, 2, 3])
  })

  test('is not acknowledged because the primary was started again', async () => {
    const pair = await pairOfItsOwn()
    const { primary, standby } = pair
    const store = open(pair)
    await store.append([event('a', 1)])
    await standby.halt()
    const append = store.append([event('a', 2)])
    const state = noted(append)
    await until(async () => (await primary.query(waitsForStandby)).length === 1)
    await primary.restart({ mode: 'immediate' })
    await until(async () => state.isOver || (await primary.query(waitsForStandby)).length > 0)
    expect(state.isOver).toBe(false)
    await standby.start()
    expect((await append).last_sequence_number).toBe(2n)
    await primary.kill()
    await pair.promote()
    await store.append([event('a', 3)])
    expect(await payloads(standby)).toEqual([1, 2, 3])
  })

  test('too long, or until an administrator has had enough, is of unknown outcome', async () => {
    const pair = await pairOfItsOwn()
    const { primary, standby } = pair
    const [patient, hasty] = [open(pair), open(pair, { statementTimeoutMs: 100 })]
    await patient.append([event('a', 1)])
    await standby.halt()
    const first = patient.append([event('a', 2)]).catch((error) => error)
    await until(async () => (await primary.query(waitsForStandby)).length === 1)
    const [{ pid }] = await primary.query(waitsForStandby)
    await primary.query('SELECT pg_cancel_backend($1)', [pid])
    const second = await hasty.append([event('a', 3)]).catch((error) => error)
    for (const error of [await first, second]) {
      expect(error.code).toBe('OutcomeUnknown')
      expect(error.message).toContain('standby')
    }
    await standby.start()
    await patient.append([event('a', 4)])
    expect(await payloads(standby)).toEqual([1, 2, 3, 4])
  })
})
