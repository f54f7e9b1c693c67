import { describe, expect, test } from 'vitest'

import { FactstrError } from '../../index.js'
import { having, stores } from '../stores.mjs'
import { failure } from './streams.mjs'

const handle = () => {}

const badHandlers = [undefined, null, 7, 'handle', {}, [handle], { call: handle }]

const badNames = [
  [undefined, 'stream: '],
  [null, 'stream: '],
  ['name', 'stream: '],
  [[], 'stream: '],
  [{}, 'stream.name: '],
  [{ name: null }, 'stream.name: '],
  [{ name: 7 }, 'stream.name: '],
  [{ name: '' }, 'stream.name: '],
  [{ name: 'x'.repeat(256) }, 'stream.name: '],
  [{ name: 'ä'.repeat(128) }, 'stream.name: '],
  [{ name: 'a\0b' }, 'stream.name: '],
  [{ name: 'a\ud800' }, 'stream.name: '],
  [{ name: 'a', nmae: 'a' }, 'stream.nmae: ']
]

/** Options that every stream refuses. */
const badOptions = [
  [7, 'options: '],
  ['options', 'options: '],
  [[], 'options: '],
  [{ onEror: handle }, 'options.onEror: '],
  [{ 'on error': handle }, 'options["on error"]: '],
  [{ onError: 'log' }, 'options.onError: '],
  [{ onError: {} }, 'options.onError: '],
  [{ signal: {} }, 'options.signal: '],
  [{ signal: new AbortController() }, 'options.signal: ']
]

const badDurableOptions = [
  ...badOptions,
  [{ retry: 3 }, 'options.retry: '],
  [{ retry: [] }, 'options.retry: '],
  [{ retry: { attempt: 3 } }, 'options.retry.attempt: '],
  [{ retry: { attempts: 0 } }, 'options.retry.attempts: '],
  [{ retry: { attempts: -1 } }, 'options.retry.attempts: '],
  [{ retry: { attempts: 1.5 } }, 'options.retry.attempts: '],
  [{ retry: { attempts: NaN } }, 'options.retry.attempts: '],
  [{ retry: { attempts: '3' } }, 'options.retry.attempts: '],
  [{ retry: { attempts: 3n } }, 'options.retry.attempts: '],
  [{ retry: { initialDelayMs: -1 } }, 'options.retry.initialDelayMs: '],
  [{ retry: { initialDelayMs: Infinity } }, 'options.retry.initialDelayMs: '],
  [{ retry: { initialDelayMs: '1' } }, 'options.retry.initialDelayMs: '],
  [{ retry: { maxDelayMs: NaN } }, 'options.retry.maxDelayMs: '],
  [{ retry: { maxDelayMs: 2 ** 31 } }, 'options.retry.maxDelayMs: '],
  [{ ifActive: 'retry' }, 'options.ifActive: '],
  [{ ifActive: true }, 'options.ifActive: '],
  [{ maxEventsPerCall: 0 }, 'options.maxEventsPerCall: '],
  [{ maxEventsPerCall: 1.5 }, 'options.maxEventsPerCall: '],
  [{ maxEventsPerCall: Infinity }, 'options.maxEventsPerCall: '],
  [{ maxEventsPerCall: '10' }, 'options.maxEventsPerCall: '],
  [{ onProgress: true }, 'options.onProgress: ']
]

/** Durable streams' options, which a live one does not have. */
const notForLive = [
  [{ retry: { attempts: 3 } }, 'options.retry: '],
  [{ ifActive: 'wait' }, 'options.ifActive: '],
  [{ maxEventsPerCall: 10 }, 'options.maxEventsPerCall: '],
  [{ onProgress: handle }, 'options.onProgress: ']
]

const badQueries = [
  [undefined, 'query: '],
  [null, 'query: '],
  [handle, 'query: '],
  [{ filter: [] }, 'query.filter: '],
  [{ filters: [{ event_types: 'a' }] }, 'query.filters[0].event_types: '],
  [{ filters: [{ event_types: ['a\0'] }] }, 'query.filters[0].event_types[0]: '],
  [having({ a: undefined }), 'query.filters[0].payload_predicates[0].a: '],
  [having({ a: '\udfff' }), 'query.filters[0].payload_predicates[0].a: '],
  [{ min_sequence_number: -1 }, 'query.min_sequence_number: ']
]

async function refused(call, code, start) {
  let promise
  expect(() => {
    promise = call()
  }).not.toThrow()
  const error = await failure(promise)
  expect(error).toBeInstanceOf(FactstrError)
  expect(error.code).toBe(code)
  expect(error.message.slice(0, start.length)).toBe(start)
  expect(error.message.length).toBeGreaterThan(start.length)
  return error
}

describe.each(stores)('arguments of streams of the $name store', ({ create }) => {
  const name = { name: 'a' }

  test('a handler that is no function is refused', async () => {
    const store = create()
    for (const bad of badHandlers) {
      await refused(() => store.streamAll(bad), 'InvalidOptions', 'handle: ')
      await refused(() => store.streamTo({}, bad), 'InvalidOptions', 'handle: ')
      await refused(() => store.streamAllDurable(name, bad), 'InvalidOptions', 'handle: ')
      await refused(() => store.streamToDurable(name, {}, bad), 'InvalidOptions', 'handle: ')
    }
    expect(await store.listDurableStreams()).toEqual([])
  })

  test('a name that is none is refused', async () => {
    const store = create()
    for (const [bad, start] of badNames) {
      await refused(() => store.streamAllDurable(bad, handle), 'InvalidOptions', start)
      await refused(() => store.streamToDurable(bad, {}, handle), 'InvalidOptions', start)
      await refused(() => store.resetDurableStream(bad), 'InvalidOptions', start)
      await refused(() => store.deleteDurableStream(bad), 'InvalidOptions', start)
    }
    expect(await store.listDurableStreams()).toEqual([])
  })

  test('options are refused with their path', async () => {
    const store = create()
    for (const [bad, start] of [...badOptions, ...notForLive]) {
      await refused(() => store.streamAll(handle, bad), 'InvalidOptions', start)
      await refused(() => store.streamTo({}, handle, bad), 'InvalidOptions', start)
    }
    for (const [bad, start] of badDurableOptions) {
      await refused(() => store.streamAllDurable(name, handle, bad), 'InvalidOptions', start)
      await refused(() => store.streamToDurable(name, {}, handle, bad), 'InvalidOptions', start)
    }
    for (const after of [-1, -1n, 1.5, NaN, '1', {}]) {
      await refused(() => store.resetDurableStream(name, after), 'InvalidOptions', 'after: ')
    }
    expect(await store.listDurableStreams()).toEqual([])
  })

  test('queries are refused with their path', async () => {
    const store = create()
    for (const [bad, start] of badQueries) {
      await refused(() => store.streamTo(bad, handle), 'InvalidQuery', start)
      await refused(() => store.streamToDurable(name, bad, handle), 'InvalidQuery', start)
    }
    expect(await store.listDurableStreams()).toEqual([])
  })

  test('what throws while it is read is refused', async () => {
    const store = create()
    const cause = new Error('gotcha')
    const raise = () => {
      throw cause
    }
    const throwing = (member, object = {}) =>
      Object.defineProperty(object, member, { get: raise, enumerable: true })
    const closed = new Proxy({}, { ownKeys: raise, get: raise })
    const signal = (member) => ({
      signal: throwing(member, Object.create(new AbortController().signal))
    })
    const calls = [
      ['stream: ', () => store.streamAllDurable(throwing('name'), handle)],
      ['stream: ', () => store.streamToDurable(closed, {}, handle)],
      ['stream: ', () => store.resetDurableStream(throwing('name'))],
      ['stream: ', () => store.deleteDurableStream(closed)],
      ['options: ', () => store.streamAllDurable(name, handle, throwing('retry'))],
      ['options: ', () => store.streamAllDurable(name, handle, closed)]
    ]
    for (const retry of [
      closed,
      ...['attempts', 'initialDelayMs', 'maxDelayMs'].map((each) => throwing(each))
    ]) {
      calls.push(['options.retry: ', () => store.streamAllDurable(name, handle, { retry })])
    }
    const signals = [{ signal: closed }, signal('aborted'), signal('addEventListener')]
    for (const options of signals) {
      calls.push(['options.signal: ', () => store.streamAll(handle, options)])
      calls.push(['options.signal: ', () => store.streamToDurable(name, {}, handle, options)])
      calls.push(['options.signal: ', () => store.read({}, options)[Symbol.asyncIterator]().next()])
    }
    for (const [start, call] of calls) {
      const error = await refused(call, 'InvalidOptions', start)
      expect(error.cause).toBe(cause)
    }
    expect(await store.listDurableStreams()).toEqual([])
  })

  test('null is the same as absent', async () => {
    const store = create()
    const options = { signal: null, onError: null }
    const durable = {
      ...options,
      retry: { attempts: null, initialDelayMs: null, maxDelayMs: null },
      ifActive: null,
      maxEventsPerCall: null,
      onProgress: null
    }
    await store.streamAll(handle, null)
    await store.streamAll(handle, options)
    await store.streamAllDurable({ name: 'x'.repeat(255) }, handle, durable)
    await store.streamAllDurable({ name: 'ä'.repeat(127) }, handle, { retry: null })
    expect(await store.listDurableStreams()).toHaveLength(2)
  })

  test('the stack of an error names the caller', async () => {
    const store = create()
    async function theCaller() {
      await store.streamToDurable(name, { filters: [7] }, handle)
    }
    const error = await failure(theCaller())
    expect(error.stack).toContain('theCaller')
  })

  test('nothing is registered with a closed store', async () => {
    const store = create()
    await store.close()
    await refused(() => store.streamAll(handle), 'StoreClosed', 'the store')
    await refused(() => store.streamTo({}, handle), 'StoreClosed', 'the store')
    await refused(() => store.streamAllDurable(name, handle), 'StoreClosed', 'the store')
    await refused(() => store.streamToDurable(name, {}, handle), 'StoreClosed', 'the store')
    await refused(() => store.listDurableStreams(), 'StoreClosed', 'the store')
    await refused(() => store.resetDurableStream(name), 'StoreClosed', 'the store')
    await refused(() => store.deleteDurableStream(name), 'StoreClosed', 'the store')
  })
})
