import { readFileSync, writeFileSync } from 'node:fs'

import { describe, expect, test } from 'vitest'

import { FactstrSqliteStore } from '../../index.js'
import { storeAt } from '../processes/place.mjs'
import { closing, event, having, lasting, stores, temporaryFolder } from '../stores.mjs'
import { appendBatches, failure, gate, recorder, until, upTo, warnings } from './streams.mjs'

const model = { name: 'model' }

describe.each(stores)('durable streams of the $name store', ({ create }) => {
  test('replay what is there before they resolve, then go on live', async () => {
    const store = create()
    await appendBatches(store, 1, 3, 2)
    const { calls, handle } = recorder(async () => {})
    const subscription = await store.streamAllDurable(model, handle)
    expect(calls).toEqual([[1], [2, 3, 4], [5, 6]])
    expect(subscription.position).toBe(6n)
    await appendBatches(store, 2)
    await until(() => calls.length === 4)
    expect(calls[3]).toEqual([7, 8])
  })

  test('start with an empty store', async () => {
    const store = create()
    const { calls, handle } = recorder()
    const subscription = await store.streamAllDurable(model, handle)
    expect(subscription.position).toBe(0n)
    await appendBatches(store, 2)
    await until(() => calls.length === 1)
    expect(calls).toEqual([[1, 2]])
  })

  test('resume strictly after the last handled batch, without a repeat', async () => {
    const store = create()
    const { calls, handle } = recorder()
    const totals = upTo(5).map((round) => 3 * round)
    for (const total of totals) {
      await appendBatches(store, 1)
      const subscription = await store.streamAllDurable(model, handle)
      await appendBatches(store, 1, 1)
      await until(() => calls.length === total)
      await subscription.unsubscribe()
    }
    expect(calls.flat()).toEqual(upTo(15))
  })

  test('see the matching events only', async () => {
    const store = create()
    const query = having({ kind: 'x' }, 'a', 'b')
    const kinds = ['x', 'y', 'x']
    await store.append(kinds.map((kind) => event('a', { kind })))
    await store.append([event('a', { kind: 'y' })])
    await store.append([event('b', { kind: 'x' }), event('c', { kind: 'x' })])
    const { calls, handle } = recorder()
    const subscription = await store.streamToDurable(model, query, handle)
    expect(calls).toEqual([[1, 3], [5]])
    await appendBatches(store, 1)
    await store.append([event('b', { kind: 'x' })])
    await until(() => calls.length === 3)
    expect(calls[2]).toEqual([8])
    await subscription.unsubscribe()
    const [{ position }] = await store.listDurableStreams()
    expect(position).toBe(8n)
  })

  test('have no gap or repeat between replay and live while others write', async () => {
    const store = create()
    await appendBatches(store, ...upTo(50).map((n) => 1 + (n % 3)))
    const writing = new AbortController()
    const writers = upTo(4).map(async () => {
      for (let n = 0; !writing.signal.aborted; n++) {
        await appendBatches(store, 1 + (n % 3))
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
    })
    const recorders = upTo(8).map((n) =>
      recorder((_, count) => (count % n === 0 ? undefined : Promise.resolve()))
    )
    for (const [n, { handle }] of recorders.entries()) {
      await store.streamAllDurable({ name: `stream-${n}` }, handle, {
        maxEventsPerCall: n % 2 === 0 ? 1 : 100
      })
      const behind = await store.headSequenceNumber()
      await until(() => recorders[n].calls.flat().length > behind)
    }
    writing.abort()
    await Promise.all(writers)
    const head = Number(await store.headSequenceNumber())
    for (const { calls } of recorders) {
      await until(() => calls.flat().length >= head)
      expect(calls.flat()).toEqual(upTo(head))
    }
  })

  test('stop at a failure during replay, and stay before it', async () => {
    const store = create()
    await appendBatches(store, 2, 1, 1)
    const cause = new Error('on the second batch')
    const { calls, handle } = recorder((_, count) => {
      if (count === 2) throw cause
    })
    const error = await failure(store.streamAllDurable(model, handle))
    expect(error).toMatchObject({ name: 'FactstrError', code: 'StreamHandlerFailed' })
    expect(error.cause).toBe(cause)
    expect(error.message).toContain('on the second batch')
    expect(calls).toEqual([[1, 2], [3]])
    const [stream] = await store.listDurableStreams()
    expect(stream).toMatchObject({ position: 2n, active: false })

    const again = recorder()
    await store.streamAllDurable(model, again.handle)
    expect(again.calls).toEqual([[3], [4]])
  })

  test('stop at a later failure, and tell so', async () => {
    const store = create()
    const { seen, stop } = warnings()
    const cause = new Error('the third one')
    const { calls, handle } = recorder(async (_, count) => {
      if (count === 3) throw cause
    })
    const subscription = await store.streamAllDurable(model, handle)
    await appendBatches(store, 1, 1, 1, 1)
    const { reason, error } = await subscription.closed
    expect(reason).toBe('handler-failed')
    expect(error).toMatchObject({ code: 'StreamHandlerFailed' })
    expect(error.cause).toBe(cause)
    await until(() => seen.length === 1)
    stop()
    expect(seen[0]).toBe(error)
    expect(subscription.position).toBe(2n)

    // The name is free at once.
    const again = recorder()
    const resumed = await store.streamAllDurable(model, again.handle)
    expect(calls).toEqual([[1], [2], [3]])
    expect(again.calls).toEqual([[3], [4]])
    await resumed.unsubscribe()
    expect(await resumed.closed).toEqual({ reason: 'unsubscribed' })
  })

  test('count false as a failure', async () => {
    const store = create()
    await appendBatches(store, 1)
    for (const value of [false, Promise.resolve(false)]) {
      const error = await failure(store.streamAllDurable(model, () => value))
      expect(error.code).toBe('StreamHandlerFailed')
      expect(error.message).toContain('the handler returned false')
    }
  })

  test('try the same batch again as often as they are told', async () => {
    const store = create()
    await appendBatches(store, 2, 1)
    const reports = []
    const { calls, handle } = recorder((records, count) => {
      // What a failed call did to its records is not seen by the next one.
      const [{ payload }] = records
      expect(payload.size).toBeGreaterThan(0)
      records.length = 0
      payload.size = 0
      if (count < 4) throw new Error(`failure ${count}`)
    })
    const subscription = await store.streamAllDurable(model, handle, {
      retry: { attempts: 4, initialDelayMs: 1, maxDelayMs: 3 },
      onError: (error, failed) => reports.push({ error, failed })
    })
    expect(calls).toEqual([[1, 2], [1, 2], [1, 2], [1, 2], [3]])
    expect(reports.map(({ error }) => error.cause.message)).toEqual([
      'failure 1',
      'failure 2',
      'failure 3'
    ])
    expect(reports.map(({ failed }) => [failed.attempt, failed.next])).toEqual([
      [1, 'retry'],
      [2, 'retry'],
      [3, 'retry']
    ])
    expect(reports.map(({ failed }) => failed.retry_delay_ms)).toEqual([1, 2, 3])
    for (const { failed } of reports) {
      expect(failed.event_records.map(({ payload }) => payload.size)).toEqual([2, 2])
    }
    await subscription.unsubscribe()
  })

  test('give up after the last attempt, and count anew for each batch', async () => {
    const store = create()
    await appendBatches(store, 1, 1, 1)
    const { calls, handle } = recorder((_, count) => count % 3 === 0)
    const options = { retry: { attempts: 3, initialDelayMs: 0 }, onError() {} }
    await store.streamAllDurable(model, handle, options)
    expect(calls).toEqual([[1], [1], [1], [2], [2], [2], [3], [3], [3]])

    const other = recorder(() => false)
    const error = await failure(store.streamAllDurable({ name: 'other' }, other.handle, options))
    expect(error.code).toBe('StreamHandlerFailed')
    expect(other.calls).toEqual([[1], [1], [1]])
  })

  test('may try for ever, until they are unsubscribed', async () => {
    const store = create()
    const { calls, handle } = recorder(() => false)
    const subscription = await store.streamAllDurable(model, handle, {
      retry: { attempts: Infinity, initialDelayMs: 0, maxDelayMs: 1 },
      onError() {}
    })
    await appendBatches(store, 1)
    await until(() => calls.length > 20)
    await subscription.unsubscribe()
    const count = calls.length
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    await appendBatches(store, 1)
    expect(calls).toHaveLength(count)
    expect(new Set(calls.flat())).toEqual(new Set([1]))
    expect((await store.listDurableStreams())[0].position).toBe(0n)
  })

  test('end in the middle of a long wait for the next attempt', async () => {
    const store = create()
    const { calls, handle } = recorder(() => false)
    const options = { retry: { attempts: 2, initialDelayMs: 1_000_000_000 }, onError() {} }
    const subscription = await store.streamAllDurable(model, handle, {
      ...options,
      retry: { ...options.retry, maxDelayMs: 1_000_000_000 }
    })
    await appendBatches(store, 1)
    await until(() => calls.length === 1)
    await subscription.unsubscribe()
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })
    const again = recorder()
    await store.streamAllDurable(model, again.handle)
    expect(again.calls).toEqual([[1]])
  })

  test('run once per name', async () => {
    const store = create()
    const first = await store.streamAllDurable(model, () => {})
    await store.streamAllDurable({ name: 'other' }, () => {})
    const active = await failure(store.streamAllDurable(model, () => {}))
    expect(active).toMatchObject({ name: 'FactstrError', code: 'DurableStreamActive' })
    expect(active.message).toContain('model')
    const racers = upTo(10).map(() => store.streamAllDurable({ name: 'raced' }, () => {}))
    const results = await Promise.allSettled(racers)
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    await first.unsubscribe()
    await store.streamAllDurable(model, () => {})
  })

  test('stand by for a name that runs, and take over without gap or repeat', async () => {
    const store = create()
    const seen = []
    const handle = async (records) => {
      for (const { sequence_number: number } of records) seen.push(Number(number))
    }
    let holder = await store.streamAllDurable(model, handle)
    for (let round = 1; round <= 5; round++) {
      const standby = store.streamAllDurable(model, handle, { ifActive: 'wait' })
      await appendBatches(store, 1, 2)
      await until(() => seen.length >= 3 * round)
      await holder.unsubscribe()
      holder = await standby
    }
    await appendBatches(store, 1)
    await until(() => seen.length === 16)
    expect(seen).toEqual(upTo(16))
  })

  test('belong to one query', async () => {
    const store = create()
    const query = { filters: [{ event_types: ['a'], payload_predicates: [{ x: 1, y: [{}] }] }] }
    const subscription = await store.streamToDurable(model, query, () => {})
    await subscription.unsubscribe()
    const others = [
      {},
      { filters: [] },
      { filters: [{ event_types: ['a'] }] },
      { filters: [{ event_types: ['b'], payload_predicates: [{ x: 1, y: [{}] }] }] },
      { filters: [{ event_types: ['a'], payload_predicates: [{ x: 2, y: [{}] }] }] },
      { filters: [...query.filters, ...query.filters, { event_types: ['b'] }] }
    ]
    for (const other of others) {
      const error = await failure(store.streamToDurable(model, other, () => {}))
      expect(error).toMatchObject({ name: 'FactstrError', code: 'DurableStreamQueryMismatch' })
    }
    const all = await failure(store.streamAllDurable(model, () => {}))
    expect(all.code).toBe('DurableStreamQueryMismatch')
    // The order of members, the form of numbers and the cursor are not part of it.
    const same = {
      min_sequence_number: 7,
      filters: [{ payload_predicates: [{ y: [{}], x: 1.0 }], event_types: ['a'] }]
    }
    const resumed = await store.streamToDurable(model, same, () => {})
    await resumed.unsubscribe()
    await store.deleteDurableStream(model)
    await store.streamAllDurable(model, () => {})
  })

  test('are the same without filters, however that is written', async () => {
    const store = create()
    const register = [
      () => store.streamAllDurable(model, () => {}),
      () => store.streamToDurable(model, {}, () => {}),
      () => store.streamToDurable(model, { filters: [] }, () => {}),
      () => store.streamToDurable(model, { filters: null }, () => {}),
      // An alternative without constraints is no filter either, whatever stands beside it.
      () => store.streamToDurable(model, { filters: [{}] }, () => {}),
      () => store.streamToDurable(model, { filters: [{ event_types: null }, {}] }, () => {}),
      () => store.streamToDurable(model, { filters: [{ event_types: ['a'] }, {}] }, () => {})
    ]
    for (const one of [...register, ...register.toReversed()]) await (await one()).unsubscribe()
    expect(await store.listDurableStreams()).toHaveLength(1)
    const some = [{ filters: [{ payload_predicates: [{}] }] }, { filters: [{ event_types: [] }] }]
    for (const query of some) {
      const error = await failure(store.streamToDurable(model, query, () => {}))
      expect(error.code).toBe('DurableStreamQueryMismatch')
    }
  })

  test('are the same with the same event types, however often and in whatever order', async () => {
    const store = create()
    const types = [
      ['a', 'b'],
      ['b', 'a'],
      ['b', 'a', 'b']
    ]
    for (const event_types of [...types, ...types.toReversed()]) {
      const query = { filters: [{ event_types }] }
      await (await store.streamToDurable(model, query, () => {})).unsubscribe()
    }
    const error = await failure(
      store.streamToDurable(model, { filters: [{ event_types: ['a'] }] }, () => {})
    )
    expect(error.code).toBe('DurableStreamQueryMismatch')
  })

  test('are listed by name', async () => {
    const store = create()
    expect(await store.listDurableStreams()).toEqual([])
    const query = { filters: [{ event_types: ['n'], payload_predicates: [{ n: 0 }] }] }
    await store.streamToDurable({ name: 'b' }, query, () => {})
    await store.streamAllDurable({ name: 'a' }, () => {})
    const gone = await store.streamAllDurable({ name: 'ä c' }, () => {})
    await gone.unsubscribe()
    expect(await store.listDurableStreams()).toEqual([
      { name: 'a', query: { filters: null }, position: 0n, head_sequence_number: 0n, active: true },
      { name: 'b', query, position: 0n, head_sequence_number: 0n, active: true },
      {
        name: 'ä c',
        query: { filters: null },
        position: 0n,
        head_sequence_number: 0n,
        active: false
      }
    ])
    await appendBatches(store, 3)
    await until(async () => {
      const [a, b] = await store.listDurableStreams()
      return a.position === 3n && b.position === 3n
    })
    const listed = await store.listDurableStreams()
    expect(listed.map((each) => each.head_sequence_number)).toEqual([3n, 3n, 3n])
    expect(listed[2].position).toBe(0n)
  })

  test('may be reset, while they do not run', async () => {
    const store = create()
    await appendBatches(store, 1, 1, 1, 1)
    // What is wrong with the stream is told before what is wrong with the position.
    expect((await failure(store.resetDurableStream(model, 99n))).code).toBe('DurableStreamNotFound')
    const unknown = await failure(store.resetDurableStream(model))
    expect(unknown).toMatchObject({ name: 'FactstrError', code: 'DurableStreamNotFound' })
    const { calls, handle } = recorder()
    const run = async () => {
      calls.length = 0
      const subscription = await store.streamAllDurable(model, handle)
      expect((await failure(store.resetDurableStream(model, 99n))).code).toBe('DurableStreamActive')
      const active = await failure(store.resetDurableStream(model))
      expect(active.code).toBe('DurableStreamActive')
      await subscription.unsubscribe()
      return calls.flat()
    }
    expect(await run()).toEqual([1, 2, 3, 4])
    await store.resetDurableStream(model, 2n)
    expect(await run()).toEqual([3, 4])
    await store.resetDurableStream(model, 3)
    expect(await run()).toEqual([4])
    await store.resetDurableStream(model, null)
    expect(await run()).toEqual([1, 2, 3, 4])
    await store.resetDurableStream(model)
    expect(await run()).toEqual([1, 2, 3, 4])
    expect(await run()).toEqual([])
  })

  test('may be forgotten, while they do not run', async () => {
    const store = create()
    await appendBatches(store, 1)
    expect((await failure(store.deleteDurableStream(model))).code).toBe('DurableStreamNotFound')
    const { calls, handle } = recorder()
    const subscription = await store.streamAllDurable(model, handle)
    expect((await failure(store.deleteDurableStream(model))).code).toBe('DurableStreamActive')
    await subscription.unsubscribe()
    await store.deleteDurableStream(model)
    expect(await store.listDurableStreams()).toEqual([])
    await store.streamToDurable(model, having({ n: 0 }), handle)
    expect(calls).toEqual([[1], [1]])
  })

  test('take several batches in one call, whole ones, in order', async () => {
    const store = create()
    const sizes = [1, 2, 3, 10, 1, 1, 1, 1, 1, 4, 2]
    await appendBatches(store, ...sizes)
    const { calls, handle } = recorder(async () => {})
    await store.streamAllDurable(model, handle, { maxEventsPerCall: 5 })
    const total = sizes.reduce((sum, size) => sum + size, 0)
    expect(calls.flat()).toEqual(upTo(total))
    expect(calls.length).toBeLessThan(sizes.length)
    let batches = sizes
    for (const call of calls) {
      let events = 0
      let taken = 0
      while (events < call.length) events += batches[taken++]
      expect(events).toBe(call.length)
      expect(events <= 5 || taken === 1).toBe(true)
      batches = batches.slice(taken)
    }
  })

  test('move past several batches as one', async () => {
    const store = create()
    await appendBatches(store, ...upTo(10).map(() => 1))
    const first = recorder(() => false)
    const options = { maxEventsPerCall: 4 }
    await failure(store.streamAllDurable(model, first.handle, options))
    expect(first.calls).toEqual([[1, 2, 3, 4]])
    const second = recorder((_, count) => count < 2)
    await failure(store.streamAllDurable(model, second.handle, options))
    expect(second.calls).toEqual([
      [1, 2, 3, 4],
      [5, 6, 7, 8]
    ])
    expect((await store.listDurableStreams())[0].position).toBe(4n)
  })

  test('tell their progress', async () => {
    const store = create()
    await appendBatches(store, ...upTo(200).map(() => 1))
    const progress = []
    await store.streamAllDurable(model, async () => {}, {
      onProgress: (each) => progress.push(each)
    })
    expect(progress.at(-1)).toEqual({ position: 200n, head_sequence_number: 200n })
    const positions = progress.map(({ position }) => position)
    expect(positions).toEqual(positions.toSorted((a, b) => Number(a - b)))
    await appendBatches(store, 1)
    await until(() => progress.at(-1).position === 201n)
    expect(progress.at(-1)).toEqual({ position: 201n, head_sequence_number: 201n })
  })

  test('survive an onProgress that fails', async () => {
    const store = create()
    const { seen, stop } = warnings()
    await appendBatches(store, 1)
    const { calls, handle } = recorder()
    await store.streamAllDurable(model, handle, {
      onProgress() {
        throw new Error('of the bar')
      }
    })
    expect(calls).toHaveLength(1)
    await until(() => seen.length > 0)
    stop()
    expect(seen[0].message).toBe('of the bar')
  })

  test('read back a long log in bounded chunks while the handler is slow', async () => {
    const store = create()
    await store.append(upTo(1000).map(() => event('large', 'x'.repeat(1000))))
    for (let n = 0; n < 30; n++) {
      await Promise.all(upTo(100).map(() => store.append([event('n', 'x'.repeat(1000))])))
    }
    const held = gate()
    const { calls, handle } = recorder((_, count) => (count === 1 ? held.opened : undefined))
    const registration = store.streamAllDurable(model, handle)
    await until(() => calls.length === 1)
    await appendBatches(store, ...upTo(100).map(() => 1))
    held.open()
    const subscription = await registration
    await until(() => subscription.position === 4100n)
    expect(calls.flat()).toEqual(upTo(4100))
    expect(calls[0]).toHaveLength(1000)
  })
})

describe.each(lasting)('durable streams of one place of the $name store', ({ place }) => {
  test('resume in the next store, without a repeat after close', async () => {
    const shared = place()
    const { calls, handle } = recorder(async () => {})
    for (let round = 1; round <= 5; round++) {
      const store = storeAt(shared)
      await appendBatches(store, 1)
      await store.streamAllDurable(model, handle)
      await appendBatches(store, 2)
      await until(() => calls.flat().length === 3 * round)
      await store.close()
    }
    expect(calls.flat()).toEqual(upTo(15))
  })

  test('run once over all stores', async () => {
    const shared = place()
    const [one, two] = [storeAt(shared), storeAt(shared)].map(closing)
    const { calls, handle } = recorder()
    const holder = await one.streamAllDurable(model, handle)
    expect((await failure(two.streamAllDurable(model, handle))).code).toBe('DurableStreamActive')
    expect((await failure(two.resetDurableStream(model))).code).toBe('DurableStreamActive')
    expect((await failure(two.deleteDurableStream(model))).code).toBe('DurableStreamActive')
    expect((await two.listDurableStreams())[0].active).toBe(true)
    const standby = two.streamAllDurable(model, handle, { ifActive: 'wait' })
    await appendBatches(two, 1, 1)
    await until(() => calls.length === 2)
    await holder.unsubscribe()
    await standby
    await appendBatches(one, 1)
    await until(() => calls.length === 3)
    expect(calls.flat()).toEqual([1, 2, 3])
  })

  test('deliver what other stores commit', async () => {
    const shared = place()
    const handles = upTo(3).map(() => closing(storeAt(shared)))
    const live = recorder()
    const durable = recorder()
    await handles[0].streamAll(live.handle)
    await handles[1].streamAllDurable(model, durable.handle)
    await Promise.all(upTo(90).map((n) => appendBatches(handles[n % 3], 1 + (n % 2))))
    await until(() => live.calls.length === 90 && durable.calls.length === 90)
    expect(live.calls.flat()).toEqual(upTo(135))
    expect(durable.calls).toEqual(live.calls)
  })
})

describe('durable streams of one SQLite file', () => {
  test('stop at a damaged payload, and stay before it', async () => {
    for (const damage of ['{"mark":"abc"', '1,9,"x","abc"', '1],[1,1],[1,1']) {
      const path = `${temporaryFolder()}/store.db`
      const before = await FactstrSqliteStore.open(path)
      await before.append([event('a', { mark: 'abc' })])
      await before.close()
      const file = readFileSync(path)
      file.write(damage.padEnd(14), file.indexOf('{"mark":"abc"}'), 'latin1')
      writeFileSync(path, file)

      const store = closing(await FactstrSqliteStore.open(path))
      const live = recorder()
      await store.streamAll(live.handle)
      const { calls, handle } = recorder()
      const error = await failure(store.streamAllDurable(model, handle))
      expect(error).toMatchObject({ name: 'FactstrError', code: 'BackendFailure' })
      expect(error.message).toContain('a stored payload is damaged')
      expect(calls).toEqual([])
      expect((await store.listDurableStreams())[0]).toMatchObject({ position: 0n, active: false })
      await appendBatches(store, 1)
      await until(() => live.calls.length === 1)
    }
  })
})
