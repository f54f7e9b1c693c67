import { describe, expect, test } from 'vitest'

import { collect, event, having, stores } from '../stores.mjs'
import { appendBatches, gate, recorder, until, upTo, warnings } from './streams.mjs'

describe.each(stores)('live streams of the $name store', ({ create }) => {
  test('deliver each batch committed after the registration, whole and in order', async () => {
    const store = create()
    await appendBatches(store, 2, 1)
    const { calls, handle } = recorder()
    await store.streamAll(handle)
    await appendBatches(store, 1, 3, 2)
    await until(() => calls.length === 3)
    expect(calls).toEqual([[4], [5, 6, 7], [8, 9]])
  })

  test('deliver records as a read returns them', async () => {
    const store = create()
    const delivered = []
    await store.streamAll((records) => delivered.push(...records))
    await store.append([
      event('ä "quoted" \\ type', { text: 'ü\n', list: [1, { a: null }], n: -0.5 }),
      event('b', null)
    ])
    await store.append([event('c', 'x'.repeat(1_000_000))])
    await until(() => delivered.length === 3)
    expect(delivered).toEqual(await collect(store.read()))
  })

  test('deliver the matching events of a batch, and no batch without any', async () => {
    const store = create()
    const [some, none, all] = [recorder(), recorder(), recorder()]
    const sizes = recorder()
    await store.streamTo(having({ kind: 'x' }), some.handle)
    await store.streamTo({ filters: [{ event_types: [] }] }, none.handle)
    await store.streamTo({ filters: [] }, all.handle)
    await store.streamTo(
      { filters: [{ event_types: ['b'] }, { payload_predicates: [{ size: { w: 1 } }] }] },
      sizes.handle
    )
    await store.append([event('a', { kind: 'x' }), event('a', {}), event('b', { kind: 'x' })])
    await store.append([event('a', { kind: 'y' })])
    await store.append([event('a', { size: { w: 1, h: 2 } }), event('c', { kind: 'x' })])
    await store.append([event('last', null)])
    await until(() => all.calls.length === 4)
    await until(() => some.calls.length === 2 && sizes.calls.length === 2)
    expect(some.calls).toEqual([[1, 3], [6]])
    expect(sizes.calls).toEqual([[3], [5]])
    expect(none.calls).toEqual([])
  })

  test('ignore the cursor of their query', async () => {
    const store = create()
    const { calls, handle } = recorder()
    await store.streamTo({ min_sequence_number: 100 }, handle)
    await appendBatches(store, 1)
    await until(() => calls.length === 1)
  })

  test('deliver a conditional append, and nothing for one that failed', async () => {
    const store = create()
    const { calls, handle } = recorder()
    await store.streamAll(handle)
    const { conflict } = await store.appendIf([event('a', 1)], {}, 7n)
    expect(conflict).not.toBe(null)
    await store.append([]).catch(() => {})
    await store.appendIf([event('a', 1), event('a', 2)], {}, null)
    await until(() => calls.length === 1)
    expect(calls).toEqual([[1, 2]])
  })

  test('deliver exactly once and in order with many concurrent writers', async () => {
    const store = create()
    const { calls, handle } = recorder((_, count) => (count % 7 === 0 ? null : Promise.resolve()))
    const filtered = recorder(async () => {})
    await store.streamAll(handle)
    await store.streamTo(having({ n: 1 }), filtered.handle)
    const sizes = upTo(400).map((n) => 1 + (n % 4))
    await Promise.all(sizes.map((size) => appendBatches(store, size)))
    const total = sizes.reduce((sum, size) => sum + size, 0)
    await until(() => calls.flat().length === total)
    expect(calls.flat()).toEqual(upTo(total))
    // Each call is one batch.
    const records = await collect(store.read())
    for (const call of calls) expect(call).toHaveLength(records[call[0] - 1].payload.size)
    const { event_records: matching } = await store.query(having({ n: 1 }))
    await until(() => filtered.calls.length === matching.length)
    expect(filtered.calls.flat()).toEqual(matching.map((record) => Number(record.sequence_number)))
  })

  test('wait for the promise of a call before the next one', async () => {
    const store = create()
    let running = 0
    const overlaps = []
    const { calls, handle } = recorder(async () => {
      overlaps.push(running++)
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
      running--
    })
    await store.streamAll(handle)
    await appendBatches(store, ...upTo(20))
    await until(() => calls.length === 20 && running === 0)
    expect(new Set(overlaps)).toEqual(new Set([0]))
  })

  test('hold nothing back but themselves, and catch up from the store', async () => {
    const store = create()
    const held = gate()
    const slow = recorder((_, count) => (count === 1 ? held.opened : undefined))
    const quick = recorder()
    await store.streamAll(slow.handle)
    await store.streamAll(quick.handle)
    const batches = upTo(3000).map(() => [event('n', 'x'.repeat(1000)), event('n', 2)])
    await Promise.all(batches.map((batch) => store.append(batch)))
    await until(() => quick.calls.length === 3000)
    expect(slow.calls).toEqual([[1, 2]])
    held.open()
    await until(() => slow.calls.length === 3000)
    expect(slow.calls).toEqual(quick.calls)
    expect(slow.calls.flat()).toEqual(upTo(6000))
  })

  test('report a failure, go on, and disturb neither append nor other streams', async () => {
    const store = create()
    const other = recorder()
    const reports = []
    const thrown = [new Error('thrown'), new Error('rejected'), undefined, 'a string', undefined]
    const { calls, handle } = recorder((_, count) => {
      if (count === 1) throw thrown[0]
      if (count === 2) return Promise.reject(thrown[1])
      if (count === 3) return false
      if (count === 4) throw thrown[3]
      if (count === 5) return Promise.resolve(false)
      return count === 6 ? true : undefined
    })
    const onError = (error, failed) => reports.push({ error, failed })
    await store.streamAll(handle, { onError })
    await store.streamAll(other.handle)
    await appendBatches(store, 1, 2, 1, 1, 1, 1, 1)
    await until(() => calls.length === 7 && other.calls.length === 7)
    expect(calls).toEqual(other.calls)
    expect(reports).toHaveLength(5)
    for (const { error, failed } of reports) {
      expect(error).toMatchObject({ name: 'FactstrError', code: 'StreamHandlerFailed' })
      expect(failed).toMatchObject({ attempt: 1, next: 'skip', retry_delay_ms: null })
    }
    expect(reports[0].error.cause).toBe(thrown[0])
    expect(reports[0].error.message).toContain('thrown')
    expect(reports[1].error.cause).toBe(thrown[1])
    expect(reports[2].error.message).toContain('the handler returned false')
    expect(reports[3].error.cause).toBe('a string')
    expect(reports[4].error.message).toContain('the handler returned false')
    expect(reports[1].failed.event_records.map((record) => record.sequence_number)).toEqual([
      2n,
      3n
    ])
  })

  test('report a failure as a process warning if nobody else is told', async () => {
    const store = create()
    const { seen, stop } = warnings()
    const cause = new Error('the reason')
    await store.streamAll(() => {
      throw cause
    })
    await store.streamAll(() => false, {
      onError() {
        throw new Error('onError itself')
      }
    })
    await store.streamAll(() => false, { onError: () => Promise.reject(new Error('late')) })
    await appendBatches(store, 1)
    await until(() => seen.length === 3)
    stop()
    const [own, ...theirs] = [
      seen.find(({ code }) => code === 'StreamHandlerFailed'),
      ...seen.filter(({ code }) => code !== 'StreamHandlerFailed')
    ]
    expect(own.cause).toBe(cause)
    expect(own.message).toContain('the reason')
    expect(theirs.map(({ message }) => message).toSorted()).toEqual(['late', 'onError itself'])
  })

  test('tell their position', async () => {
    const store = create()
    await appendBatches(store, 2)
    const { calls, handle } = recorder()
    const subscription = await store.streamAll(handle)
    expect(subscription.position).toBe(0n)
    await appendBatches(store, 1, 3)
    await until(() => calls.length === 2)
    await until(() => subscription.position === 6n)
    await subscription.unsubscribe()
    expect(subscription.position).toBe(6n)
  })

  test('may be many', async () => {
    const store = create()
    const recorders = upTo(200).map(() => recorder())
    await Promise.all(recorders.map(({ handle }, n) => store.streamTo(having({ n }), handle)))
    await store.append(recorders.map((_, n) => event('n', { n })))
    await store.append(recorders.map((_, n) => event('n', { n })).toReversed())
    await until(() => recorders.every(({ calls }) => calls.length === 2))
    expect(recorders.map(({ calls }) => calls)).toEqual(
      recorders.map((_, n) => [[n + 1], [400 - n]])
    )
  })
})
