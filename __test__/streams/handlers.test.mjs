// What a handler may do, and what may be done to it.

import { AsyncLocalStorage } from 'node:async_hooks'
import vm from 'node:vm'

import { describe, expect, test } from 'vitest'

import { countTurns, event, having, stores } from '../stores.mjs'
import { appendBatches, failure, gate, noted, recorder, until, upTo } from './streams.mjs'

const model = { name: 'model' }

describe.each(stores)('handlers on the $name store', ({ create }) => {
  test('may return any thenable', async () => {
    const store = create()
    const foreign = vm.createContext({ setTimeout })
    const results = [
      () => vm.runInContext('new Promise((resolve) => setTimeout(resolve, 1))', foreign),
      () => ({ then: (resolve) => resolve(undefined) }),
      () => Object.assign(() => {}, { then: (resolve) => setImmediate(resolve, true) }),
      () => ({ then: 'not a function' }),
      () => 'anything',
      () => null
    ]
    const failures = [
      () => vm.runInContext('Promise.reject(new Error("foreign"))', foreign),
      () => vm.runInContext('(() => { throw new Error("thrown there") })()', foreign),
      () => ({
        then() {
          throw new Error('in then')
        }
      }),
      () => ({
        get then() {
          throw new Error('of then')
        }
      }),
      () => ({ then: (_, reject) => reject('plain') }),
      () => {
        throw Object.create(null)
      },
      () => {
        throw undefined
      }
    ]
    const reports = []
    let n = 0
    await store.streamAll(() => [...results, ...failures][n++](), {
      onError: ({ code, cause }) => reports.push({ code, cause })
    })
    await appendBatches(store, ...[...results, ...failures].map(() => 1))
    await until(() => reports.length === failures.length)
    expect(new Set(reports.map(({ code }) => code))).toEqual(new Set(['StreamHandlerFailed']))
    expect(reports.map(({ cause }) => cause?.message ?? cause).slice(0, 5)).toEqual([
      'foreign',
      'thrown there',
      'in then',
      'of then',
      'plain'
    ])
  })

  test('keep the stack of what they threw', async () => {
    const store = create()
    await appendBatches(store, 1)
    function deepInside() {
      return JSON.parse('{')
    }
    const error = await failure(store.streamAllDurable(model, () => deepInside()))
    expect(error.cause).toBeInstanceOf(SyntaxError)
    expect(error.cause.stack).toContain('deepInside')
  })

  test('are called in the context of the registration', async () => {
    const store = create()
    const context = new AsyncLocalStorage()
    const seen = []
    const note = () => seen.push(context.getStore())
    const failing = async () => {
      note()
      await null
      note()
      throw new Error('for onError')
    }
    await context.run('registration', () => store.streamAll(failing, { onError: note }))
    await context.run('append', () => appendBatches(store, 1))
    await until(() => seen.length === 3)
    await appendBatches(store, 1)
    await until(() => seen.length === 6)
    expect(new Set(seen)).toEqual(new Set(['registration']))
  })

  test('may append, query and read on the same store', async () => {
    const store = create()
    const found = []
    await store.streamTo({ filters: [{ event_types: ['order'] }] }, async ([{ payload }]) => {
      const context = having({ order: payload.order }, 'confirmed')
      const { current_context_version: version } = await store.query(context)
      await store.appendIf([event('confirmed', { order: payload.order })], context, version)
      for await (const record of store.read(context)) found.push(record.payload.order)
    })
    await store.append([event('order', { order: 1 })])
    await Promise.all(upTo(20).map((n) => store.append([event('order', { order: n + 1 })])))
    await until(() => found.length === 21)
    expect(found.toSorted((a, b) => a - b)).toEqual(upTo(21))
  })

  test('may react to their own appends', async () => {
    const store = create()
    const { calls, handle } = recorder(async ([{ payload }]) => {
      if (payload < 100) await store.append([event('count', payload + 1)])
    })
    await store.streamAllDurable(model, handle)
    await store.append([event('count', 1)])
    await until(() => calls.length === 100)
    expect(calls.flat()).toEqual(upTo(100))
  })

  test('may register streams', async () => {
    const store = create()
    const inner = recorder()
    const durable = recorder()
    const { calls, handle } = recorder(async (_, count) => {
      if (count !== 1) return
      await store.streamAll(inner.handle)
      await store.streamAllDurable({ name: 'inner' }, durable.handle)
    })
    await appendBatches(store, 1)
    await store.streamAllDurable(model, handle)
    await appendBatches(store, 1)
    await until(() => calls.length === 2 && inner.calls.length === 1 && durable.calls.length === 2)
    expect(inner.calls).toEqual([[2]])
    expect(durable.calls).toEqual([[1], [2]])
  })

  test('may unsubscribe their own stream, and wait for it', async () => {
    const store = create()
    let subscription
    const { calls, handle } = recorder(async (_, count) => {
      await null
      if (count === 2) {
        await subscription.unsubscribe()
        await subscription.unsubscribe()
      }
    })
    subscription = await store.streamAllDurable(model, handle)
    await appendBatches(store, 1, 1, 1)
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    expect(calls).toEqual([[1], [2]])
    // The call that unsubscribed has succeeded.
    expect((await store.listDurableStreams())[0]).toMatchObject({ position: 2n, active: false })
    await store.streamAllDurable(model, handle)
    expect(calls[2]).toEqual([3])
  })

  test('may unsubscribe at once, before they return', async () => {
    const store = create()
    let subscription
    const { calls, handle } = recorder(() => {
      subscription.unsubscribe()
    })
    subscription = await store.streamAll(handle)
    await Promise.all([appendBatches(store, 1), appendBatches(store, 1)])
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    expect(calls).toHaveLength(1)
  })

  test('may unsubscribe each other in a circle', async () => {
    const store = create()
    const both = gate()
    let arrived = 0
    const subscriptions = []
    const handler = (other) => async () => {
      if (++arrived === 2) both.open()
      await both.opened
      await subscriptions[other].unsubscribe()
    }
    subscriptions.push(await store.streamAllDurable({ name: 'a' }, handler(1)))
    subscriptions.push(await store.streamAllDurable({ name: 'b' }, handler(0)))
    await appendBatches(store, 1)
    for (const { closed } of subscriptions) expect(await closed).toEqual({ reason: 'unsubscribed' })
    const positions = (await store.listDurableStreams()).map(({ position }) => position)
    expect(positions).toEqual([1n, 1n])
  })

  test('may close the store, and wait for it', async () => {
    const store = create()
    const outcomes = []
    const { calls, handle } = recorder(async () => {
      await store.close()
      outcomes.push(await failure(store.append([event('a', 1)])))
    })
    const subscription = await store.streamAllDurable(model, handle)
    const other = await store.streamAll(async () => {
      await store.close()
    })
    await appendBatches(store, 1)
    expect(await subscription.closed).toEqual({ reason: 'store-closed' })
    expect(await other.closed).toEqual({ reason: 'store-closed' })
    await store.close()
    expect(calls).toEqual([[1]])
    expect(outcomes[0].code).toBe('StoreClosed')
  })

  test('may close the store in a stream that another handler is registering', async () => {
    const store = create()
    let outcome
    await store.streamAll(async () => {
      outcome = await failure(
        store.streamAllDurable(model, async () => {
          await store.close()
        })
      )
    })
    await appendBatches(store, 1)
    await until(() => outcome !== undefined)
    expect(outcome.code).toBe('StoreClosed')
    await store.close()
  })

  test('do not count as calling once they have settled', async () => {
    const store = create()
    const held = gate()
    const later = gate()
    let unsubscribed = false
    let subscription
    const { calls, handle } = recorder((_, count) => {
      if (count === 1) {
        // Goes on after the call has settled: then it waits like anyone else.
        void (async () => {
          await later.opened
          await subscription.unsubscribe()
          unsubscribed = true
        })()
      }
      return count === 2 ? held.opened : undefined
    })
    subscription = await store.streamAll(handle)
    await appendBatches(store, 1, 1)
    await until(() => calls.length === 2)
    later.open()
    await appendBatches(store, 1)
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    expect(unsubscribed).toBe(false)
    held.open()
    await until(() => unsubscribed)
    expect(calls).toHaveLength(2)
  })

  test('leave the event loop its turns, and each other', async () => {
    const store = create()
    await Promise.all(upTo(4000).map(() => appendBatches(store, 1)))
    const counts = [0, 0]
    const switches = []
    const busy = (which) => () => {
      counts[which]++
      if (switches.at(-1) !== which) switches.push(which)
      const end = performance.now() + 0.02
      while (performance.now() < end);
    }
    const turns = countTurns()
    await Promise.all([
      store.streamAllDurable({ name: 'a' }, busy(0)),
      store.streamAllDurable({ name: 'b' }, async () => busy(1)())
    ])
    expect(counts).toEqual([4000, 4000])
    expect(turns()).toBeGreaterThan(20)
    expect(switches.length).toBeGreaterThan(10)
  })

  test('that do not settle stop their own stream only', async () => {
    const store = create()
    const held = gate()
    const stuck = recorder(() => held.opened)
    const { calls, handle } = recorder()
    const subscription = await store.streamAll(stuck.handle)
    await store.streamAll(handle)
    for (let n = 0; n < 20; n++) {
      await Promise.all(upTo(50).map(() => store.append([event('n', 'x'.repeat(5000))])))
    }
    await until(() => calls.length === 1000)
    expect(stuck.calls).toHaveLength(1)
    const ended = noted(subscription.closed)
    const unsubscribed = noted(subscription.unsubscribe())
    await appendBatches(store, 1)
    await until(() => calls.length === 1001)
    expect([ended.isOver, unsubscribed.isOver]).toEqual([false, false])
    held.open()
    await until(() => ended.isOver && unsubscribed.isOver)
    expect(stuck.calls).toHaveLength(1)
  })
})
