// Signals that many streams share, and signals that are not what they seem.

import { getEventListeners } from 'node:events'

import { describe, expect, test } from 'vitest'

import { FactstrSqliteStore } from '../../index.js'
import { closing, stores, temporaryFolder } from '../stores.mjs'
import { appendBatches, failure, recorder, upTo, until, warnings } from './streams.mjs'

const model = { name: 'model' }
const gotcha = new Error('gotcha')

function raise() {
  throw gotcha
}

/** A signal with one odd member. */
function odd(member, value) {
  const { signal } = new AbortController()
  const members = ['aborted', 'reason', 'throwIfAborted', 'addEventListener', 'removeEventListener']
  const copy = {}
  for (const each of members) {
    Object.defineProperty(copy, each, {
      get: () => (typeof signal[each] === 'function' ? signal[each].bind(signal) : signal[each]),
      configurable: true
    })
  }
  return Object.defineProperty(copy, member, value)
}

const lazy = {
  name: 'sqlite, not open yet',
  create: () => closing(new FactstrSqliteStore(`${temporaryFolder()}/store.db`))
}

describe.each([...stores, lazy])('signals on the $name store', ({ create }) => {
  test('are listened to once, by however many streams and reads', async () => {
    const store = create()
    await appendBatches(store, ...upTo(3))
    const { seen, stop } = warnings()
    const controller = new AbortController()
    const { signal } = controller
    const { calls, handle } = recorder()
    const subscriptions = await Promise.all(
      upTo(30).map((n) =>
        n % 2 === 0
          ? store.streamAll(handle, { signal })
          : store.streamAllDurable({ name: `model ${n}` }, () => {}, { signal })
      )
    )
    await Promise.all(upTo(30).map(() => store.read({}, { signal })[Symbol.asyncIterator]().next()))
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    for (const subscription of subscriptions.slice(0, 20)) await subscription.unsubscribe()
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    await appendBatches(store, 1)
    await until(() => calls.length === 5)
    controller.abort()
    for (const { closed } of subscriptions) expect(await closed).toEqual({ reason: 'unsubscribed' })
    await appendBatches(store, 1)
    expect(calls).toHaveLength(5)
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
    stop()
    expect(seen).toEqual([])
  })

  test('are listened to no longer than there is a stream', async () => {
    const store = create()
    const { signal } = new AbortController()
    for (let round = 0; round < 3; round++) {
      const subscriptions = [
        await store.streamAll(() => {}, { signal }),
        await store.streamAllDurable(model, () => {}, { signal })
      ]
      await failure(store.streamAllDurable(model, () => {}, { signal }))
      expect(getEventListeners(signal, 'abort')).toHaveLength(1)
      for (const subscription of subscriptions) await subscription.unsubscribe()
      expect(getEventListeners(signal, 'abort')).toHaveLength(0)
    }
  })

  test('that can not be listened to are refused, and leave nothing behind', async () => {
    const store = create()
    const options = { signal: odd('addEventListener', { value: raise }) }
    const calls = [
      () => store.streamAll(() => {}, options),
      () => store.streamAllDurable(model, () => {}, options)
    ]
    for (const error of await Promise.all(calls.map((call) => failure(call())))) {
      expect(error).toMatchObject({ name: 'FactstrError', code: 'InvalidOptions', cause: gotcha })
      expect(error.message).toBe('options.signal: gotcha')
    }
    expect(await store.listDurableStreams()).toEqual([])
    await store.streamAllDurable(model, () => {})
    await store.close()
  })

  test('that can not be let go, or read again, do no harm', async () => {
    const store = create()
    const once = () => {
      let reads = 0
      return odd('aborted', { get: () => (++reads === 1 ? false : raise()) })
    }
    for (const make of [() => odd('removeEventListener', { value: raise }), once]) {
      const { calls, handle } = recorder()
      const subscription = await store.streamAllDurable(model, handle, { signal: make() })
      const live = await store.streamAll(handle, { signal: make() })
      await appendBatches(store, 1)
      await until(() => calls.length >= 2)
      await subscription.unsubscribe()
      await live.unsubscribe()
      expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
      expect(await live.closed).toEqual({ reason: 'unsubscribed' })
    }
  })
})
