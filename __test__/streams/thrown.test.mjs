// Whatever a handler or a callback throws, it is told and nothing else happens.

import { describe, expect, test } from 'vitest'

import { stores } from '../stores.mjs'
import { appendBatches, recorder, until } from './streams.mjs'

const unusual = {
  'an error whose message is a symbol': () =>
    Object.assign(new Error('x'), { message: Symbol('no words') }),
  'an error whose message has no text': () =>
    Object.assign(new Error('x'), { message: Object.create(null) }),
  'an error whose stack throws': () =>
    Object.defineProperty(new Error('x'), 'stack', {
      get() {
        throw new Error('gotcha')
      }
    }),
  'an error whose cause throws': () =>
    Object.defineProperty(new Error('x'), 'cause', {
      get() {
        throw new Error('gotcha')
      }
    }),
  'a frozen error': () => Object.freeze(new Error('x', { cause: new Error('y') })),
  'a proxy that refuses everything': () =>
    new Proxy(
      {},
      {
        getPrototypeOf() {
          throw new Error('gotcha')
        },
        get() {
          throw new Error('gotcha')
        }
      }
    ),
  nothing: () => undefined
}

describe.each(stores)('streams of the $name store', ({ create }) => {
  test.each(Object.keys(unusual))('survive %s', async (name) => {
    const store = create()
    for (const way of [(value) => Promise.reject(value), (value) => raise(value)]) {
      const { calls, handle } = recorder(() => way(unusual[name]()))
      const plain = await store.streamAll(handle)
      const told = []
      const noisy = await store.streamAll(() => false, {
        onError(error) {
          told.push(error.code)
          return way(unusual[name]())
        }
      })
      await appendBatches(store, 1, 1)
      await until(() => calls.length === 2 && told.length === 2)
      await plain.unsubscribe()
      await noisy.unsubscribe()
      expect(await plain.closed).toEqual({ reason: 'unsubscribed' })
      expect(await noisy.closed).toEqual({ reason: 'unsubscribed' })

      const durable = store.streamAllDurable({ name: 'model' }, () => way(unusual[name]()))
      await expect(durable).rejects.toMatchObject({ code: 'StreamHandlerFailed' })
    }
  })
})

function raise(value) {
  throw value
}
