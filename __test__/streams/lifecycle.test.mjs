// How a stream begins and ends.

import { describe, expect, test } from 'vitest'

import { storeAt } from '../processes/place.mjs'
import { having, lasting, stores, temporaryFolder } from '../stores.mjs'
import { appendBatches, failure, gate, noted, recorder, until, upTo } from './streams.mjs'

const model = { name: 'model' }

describe.each(stores)('subscriptions of the $name store', ({ create }) => {
  test('call no handler once unsubscribe has returned', async () => {
    const store = create()
    const { calls, handle } = recorder()
    const subscription = await store.streamAll(handle)
    const appends = upTo(50).map(() => appendBatches(store, 1))
    await until(() => calls.length > 0)
    const ended = subscription.unsubscribe()
    const count = calls.length
    await Promise.all(appends)
    await ended
    await appendBatches(store, 1)
    const other = recorder()
    await store.streamAllDurable(model, other.handle)
    expect(calls).toHaveLength(count)
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
  })

  test('wait on unsubscribe for the call that runs, and store the cursor', async () => {
    const store = create()
    const held = gate()
    const { calls, handle } = recorder(() => held.opened)
    const subscription = await store.streamAllDurable(model, handle)
    await appendBatches(store, 1, 1)
    await until(() => calls.length === 1)
    const unsubscribed = noted(subscription.unsubscribe())
    const closed = noted(subscription.closed)
    expect((await failure(store.streamAllDurable(model, handle))).code).toBe('DurableStreamActive')
    expect([unsubscribed.isOver, closed.isOver]).toEqual([false, false])
    held.open()
    await until(() => unsubscribed.isOver && closed.isOver)
    const again = recorder()
    await store.streamAllDurable(model, again.handle)
    expect(calls).toEqual([[1]])
    expect(again.calls).toEqual([[2]])
  })

  test('give up a call that never settles', async () => {
    const store = create()
    await appendBatches(store, 1, 1)
    const never = new Promise(() => {})
    const { calls, handle } = recorder(([{ sequence_number: at }]) =>
      at === 2n ? never : undefined
    )
    const controller = new AbortController()
    const { signal } = controller
    const registration = failure(store.streamAllDurable(model, handle, { signal }))
    await until(() => calls.length === 2)
    controller.abort(new Error('the reason'))
    expect((await registration).message).toBe('the reason')

    const live = await store.streamAll(() => never)
    const again = recorder()
    const durable = await store.streamAllDurable(model, again.handle)
    expect(again.calls).toEqual([[2]])
    await appendBatches(store, 1)
    await until(() => again.calls.length === 2)
    await live.unsubscribe()
    expect(await live.closed).toEqual({ reason: 'unsubscribed' })
    await durable.unsubscribe()
  })

  test('tell once of a call that was given up, and count its late success', async () => {
    const store = create()
    const names = ['late', 'anew', 'reset', 'deleted', 'failing', 'live']
    const held = gate()
    const failing = gate()
    const reports = []
    const streams = []
    for (const name of names) {
      const waiting = name === 'failing' ? failing : held
      const { calls, handle } = recorder(() => waiting.opened)
      const onError = (error, told) => reports.push({ name, error, told })
      const subscription =
        name === 'live'
          ? await store.streamAll(handle, { onError })
          : await store.streamAllDurable({ name }, handle, { onError })
      streams.push({ calls, subscription })
    }
    await appendBatches(store, 2, 1)
    await until(() => streams.every(({ calls }) => calls.length === 1))
    await Promise.all(streams.map(({ subscription }) => subscription.unsubscribe()))
    for (const { subscription } of streams) {
      expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    }
    expect(reports.map(({ name }) => name).toSorted()).toEqual(names.toSorted())
    for (const { name, error, told } of reports) {
      expect(error).toMatchObject({ name: 'FactstrError', code: 'StreamHandlerFailed' })
      expect(error.message).toContain('still running')
      expect(told).toMatchObject({ attempt: 1, next: 'stop', retry_delay_ms: null })
      expect(told.event_records.map(({ payload }) => payload.n)).toEqual([0, 1])
      if (name === 'live') continue
      expect(error.message).toContain(`'${name}'`)
      expect(error.message).toContain('repeated')
    }
    const known = async (name) => {
      const listed = await store.listDurableStreams()
      return listed.find((stream) => stream.name === name)
    }
    for (const name of names.slice(0, 5)) {
      expect(await known(name)).toMatchObject({ position: 0n, active: false })
    }

    // Whoever has taken the name since decides about the cursor alone.
    const again = recorder(() => {
      throw new Error('of the next one')
    })
    const failed = failure(store.streamAllDurable({ name: 'anew' }, again.handle))
    expect((await failed).code).toBe('StreamHandlerFailed')
    expect(again.calls).toEqual([[1, 2]])
    await store.resetDurableStream({ name: 'reset' })
    await store.deleteDurableStream({ name: 'deleted' })
    await failure(store.streamAllDurable({ name: 'deleted' }, again.handle))

    held.open()
    failing.open(Promise.reject(new Error('too late')))
    await until(async () => (await known('late')).position === 2n)
    await until(() => reports.length === names.length + 1)
    expect(reports.at(-1)).toMatchObject({
      name: 'failing',
      error: { code: 'StreamHandlerFailed', cause: { message: 'too late' } },
      told: { attempt: 1, next: 'stop' }
    })
    const rest = recorder()
    await store.streamAllDurable({ name: 'late' }, rest.handle)
    expect(rest.calls).toEqual([[3]])
    for (const name of ['anew', 'reset', 'deleted', 'failing']) {
      expect(await known(name)).toMatchObject({ position: 0n, active: false })
    }
    expect(streams.every(({ calls }) => calls.length === 1)).toBe(true)
  })

  test('leave the cursor where it was if the call that runs fails', async () => {
    const store = create()
    const held = gate()
    const { calls, handle } = recorder(async () => {
      await held.opened
      throw new Error('at last')
    })
    const reports = []
    const subscription = await store.streamAllDurable(model, handle, {
      retry: { attempts: Infinity, initialDelayMs: 0 },
      onError: (error) => reports.push(error.cause.message)
    })
    await appendBatches(store, 1)
    await until(() => calls.length === 1)
    const ended = subscription.unsubscribe()
    held.open()
    await ended
    expect(calls).toHaveLength(1)
    expect(reports).toEqual(['at last'])
    expect((await store.listDurableStreams())[0]).toMatchObject({ position: 0n, active: false })
  })

  test('may be unsubscribed again and again', async () => {
    const store = create()
    const subscription = await store.streamAll(() => {})
    await Promise.all([subscription.unsubscribe(), subscription.unsubscribe()])
    subscription[Symbol.dispose]()
    expect(await subscription.unsubscribe()).toBeUndefined()
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    expect(subscription.ref()).toBe(subscription)
    expect(subscription.unref()).toBe(subscription)
    expect(subscription.position).toBe(0n)
  })

  test('end when they are disposed', async () => {
    const store = create()
    const subscription = await store.streamAllDurable(model, () => {})
    subscription[Symbol.dispose]()
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    await store.streamAllDurable(model, () => {})
  })

  test('end with the store', async () => {
    const store = create()
    const subscriptions = [
      await store.streamAll(() => {}),
      await store.streamTo(having({ n: 1 }), () => {}),
      await store.streamAllDurable(model, () => {})
    ]
    await store.close()
    for (const { closed } of subscriptions) {
      const state = noted(closed)
      await null
      await null
      expect(state.isOver).toBe(true)
      expect(await closed).toEqual({ reason: 'store-closed' })
    }
    await subscriptions[0].unsubscribe()
  })

  test('are awaited by close, with the call that runs', async () => {
    const store = create()
    const held = gate()
    const { calls, handle } = recorder(() => held.opened)
    const subscription = await store.streamAllDurable(model, handle)
    await appendBatches(store, 1, 1)
    await until(() => calls.length === 1)
    const closed = noted(store.close())
    expect((await failure(store.append([]))).code).toBe('StoreClosed')
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    expect(closed.isOver).toBe(false)
    held.open()
    await until(() => closed.isOver)
    expect(await subscription.closed).toEqual({ reason: 'store-closed' })
    expect(calls).toEqual([[1]])
    expect(subscription.position).toBe(1n)
  })

  test('of a replay that is going on are rejected by close', async () => {
    const store = create()
    await appendBatches(store, 1, 1, 1)
    const held = gate()
    const { calls, handle } = recorder((_, count) => (count === 2 ? held.opened : undefined))
    const registration = failure(store.streamAllDurable(model, handle))
    await until(() => calls.length === 2)
    const closed = store.close()
    held.open()
    await closed
    expect((await registration).code).toBe('StoreClosed')
    expect(calls).toHaveLength(2)
  })

  test('that stand by are rejected by close', async () => {
    const store = create()
    await store.streamAllDurable(model, () => {})
    const standby = failure(store.streamAllDurable(model, () => {}, { ifActive: 'wait' }))
    await store.close()
    expect((await standby).code).toBe('StoreClosed')
  })

  test('may be asked for and closed at once', async () => {
    const store = create()
    const registrations = [
      store.streamAll(() => {}),
      store.streamAllDurable(model, () => {}),
      store.streamAllDurable(model, () => {}, { ifActive: 'wait' })
    ]
    const outcomes = Promise.allSettled(registrations)
    await store.close()
    for (const { status, value, reason } of await outcomes) {
      if (status === 'fulfilled') expect(await value.closed).toEqual({ reason: 'store-closed' })
      else expect(['StoreClosed', 'DurableStreamActive']).toContain(reason.code)
    }
  })
})

describe.each(stores)('a signal on the $name store', ({ create }) => {
  const reason = new Error('the reason')

  test('that has aborted refuses the registration', async () => {
    const store = create()
    const signal = AbortSignal.abort(reason)
    const register = [
      () => store.streamAll(() => {}, { signal }),
      () => store.streamTo({}, () => {}, { signal }),
      () => store.streamAllDurable(model, () => {}, { signal }),
      () => store.streamToDurable(model, {}, () => {}, { signal })
    ]
    for (const each of register) expect(await failure(each())).toBe(reason)
    expect(await store.listDurableStreams()).toEqual([])
  })

  test('that aborts during the replay rejects the registration', async () => {
    const store = create()
    await appendBatches(store, 1, 1, 1, 1)
    const controller = new AbortController()
    const { calls, handle } = recorder(async (_, count) => {
      await null
      if (count === 2) controller.abort(reason)
    })
    const { signal } = controller
    expect(await failure(store.streamAllDurable(model, handle, { signal }))).toBe(reason)
    expect(calls).toEqual([[1], [2]])
    const again = recorder()
    await store.streamAllDurable(model, again.handle)
    expect(again.calls).toEqual([[3], [4]])
  })

  test('that aborts at once rejects the registration or unsubscribes', async () => {
    const store = create()
    await appendBatches(store, 1)
    for (let turns = 0; turns < 6; turns++) {
      const controller = new AbortController()
      const { signal } = controller
      const registration = store.streamAllDurable(model, () => {}, { signal })
      for (let n = 0; n < turns; n++) {
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
      controller.abort(reason)
      const outcome = await registration.catch((error) => error)
      if (outcome !== reason) expect(await outcome.closed).toEqual({ reason: 'unsubscribed' })
    }
    await store.streamAllDurable(model, () => {})
  })

  test('that aborts while the stream stands by rejects the registration', async () => {
    const store = create()
    const { calls, handle } = recorder()
    await store.streamAllDurable(model, handle)
    const controller = new AbortController()
    const { signal } = controller
    const standby = failure(store.streamAllDurable(model, () => {}, { ifActive: 'wait', signal }))
    await appendBatches(store, 1)
    controller.abort(reason)
    expect(await standby).toBe(reason)
    await appendBatches(store, 1)
    await until(() => calls.length === 2)
  })

  test('that aborts during a pause between attempts rejects the registration', async () => {
    const store = create()
    await appendBatches(store, 1)
    const controller = new AbortController()
    const { calls, handle } = recorder(() => false)
    const registration = failure(
      store.streamAllDurable(model, handle, {
        signal: controller.signal,
        retry: { attempts: 5, initialDelayMs: 10_000_000, maxDelayMs: 10_000_000 },
        onError() {}
      })
    )
    await until(() => calls.length === 1)
    controller.abort(reason)
    expect(await registration).toBe(reason)
    expect(calls).toHaveLength(1)
  })

  test('that aborts later unsubscribes', async () => {
    const store = create()
    const controller = new AbortController()
    const { signal } = controller
    const { calls, handle } = recorder()
    const live = await store.streamAll(handle, { signal })
    const durable = await store.streamAllDurable(model, handle, { signal })
    await appendBatches(store, 1)
    await until(() => calls.length === 2)
    controller.abort(reason)
    for (const { closed } of [live, durable])
      expect(await closed).toEqual({ reason: 'unsubscribed' })
    await appendBatches(store, 1)
    expect(calls).toHaveLength(2)
  })

  test('that aborts after the end changes nothing', async () => {
    const store = create()
    const controller = new AbortController()
    const subscription = await store.streamAll(() => {}, { signal: controller.signal })
    await subscription.unsubscribe()
    controller.abort(reason)
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
  })
})

describe.each(lasting)('a $name store that is not open yet', ({ create }) => {
  test('opens for a registration', async () => {
    const store = create()
    const { calls, handle } = recorder()
    const registration = store.streamAll(handle)
    await registration
    await appendBatches(store, 1)
    await until(() => calls.length === 1)
    await store.close()
  })

  test('minds a signal that aborts meanwhile', async () => {
    const store = create()
    const controller = new AbortController()
    const registration = store.streamAll(() => {}, { signal: controller.signal })
    controller.abort(new Error('the reason'))
    expect((await failure(registration)).message).toBe('the reason')
    await store.close()
  })
})

describe('a store that can not be opened', () => {
  const nowhere = {
    sqlite: () => ({ kind: 'sqlite', path: temporaryFolder() }),
    postgres: () => ({ kind: 'postgres', url: 'postgresql://a:b@127.0.0.1:1/c', schema: 'd' })
  }

  test.each(Object.entries(nowhere))('rejects a registration: %s', async (_, place) => {
    const store = storeAt(JSON.stringify(place()))
    const error = await failure(store.streamAllDurable(model, () => {}))
    expect(error.name).toBe('FactstrError')
    expect((await failure(store.listDurableStreams())).name).toBe('FactstrError')
    await store.close()
  })
})
