// Runs one of these programs by name on a place: how a process with a PostgreSQL store ends.

import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'

import { storeAt } from './place.mjs'

const [name, place] = isMainThread ? process.argv.slice(2) : workerData
const event = { event_type: 'a', payload: 1 }
const open = (options) => storeAt(place, options)
const tell = (message) => (isMainThread ? process.send(message) : parentPort.postMessage(message))

function worker(program) {
  return new Worker(fileURLToPath(import.meta.url), { workerData: [program, place] })
}

const programs = {
  /** Constructs, and no more. */
  unused() {
    const stores = Array.from({ length: 50 }, () => open())
    console.log(stores.length)
  },

  /** Has connections of every kind, and nothing to do. */
  async idle() {
    const store = open()
    await store.append([event])
    await Promise.all(Array.from({ length: 8 }, () => store.query()))
    const subscription = await store.streamAll(() => {})
    await subscription.unsubscribe()
    console.log('idle')
  },

  /** Awaits an append that is not answered. */
  async appending() {
    const store = open({ connectTimeoutMs: 500, statementTimeoutMs: 500 })
    await store.append([event])
    tell('ready')
    await new Promise((resolve) => {
      process.once('message', resolve)
    })
    process.channel.unref()
    store.append([event]).then(
      () => console.log('appended'),
      ({ code }) => console.log(code)
    )
  },

  /** Ends while an append is not answered. */
  async exiting() {
    const store = open()
    await store.append([event])
    tell('ready')
    await new Promise((resolve) => {
      process.once('message', resolve)
    })
    void store.append([event])
    void store.query()
    void store.streamAllDurable({ name: 'model' }, () => {})
    setTimeout(() => process.exit(7), 20)
  },

  /** Stops workers whose appends, reads and streams are not answered. */
  async workers() {
    const workers = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const busy = worker('busy')
        await new Promise((resolve) => {
          busy.once('message', resolve)
        })
        return busy
      })
    )
    tell('ready')
    await new Promise((resolve) => {
      process.once('message', resolve)
    })
    for (const busy of workers) busy.postMessage('go')
    await Promise.all(
      workers.map(
        (busy) =>
          new Promise((resolve) => {
            busy.once('message', resolve)
          })
      )
    )
    for (const busy of workers) await busy.terminate()
    console.log('terminated')
    process.disconnect()
  },

  async busy() {
    const store = open()
    await store.append([event])
    await store.streamAllDurable({ name: `${Math.random()}` }, () => {})
    tell('ready')
    await new Promise((resolve) => {
      parentPort.once('message', resolve)
    })
    for (let n = 0; n < 10; n++) {
      void store.append([event])
      void store.query()
    }
    void store.close()
    tell('busy')
    setInterval(() => {}, 1000)
  },

  /** Does nothing that could fail while its server dies, and goes on when it is back. */
  async surviving() {
    process.on('uncaughtException', (error) => console.log(`uncaught: ${error.message}`))
    process.on('warning', ({ name: kind }) => console.log(`warning: ${kind}`))
    const store = open()
    await store.append([event])
    await store.query()
    tell('ready')
    await new Promise((resolve) => {
      process.once('message', resolve)
    })
    const { last_sequence_number: last } = await store.append([event])
    console.log(`last ${last}`)
    process.disconnect()
  },

  /** Forgets to handle what its append rejects with. */
  async unhandled() {
    const store = open({ connectTimeoutMs: 200 })
    await store.append([event])
    tell('ready')
    await new Promise((resolve) => {
      process.once('message', resolve)
    })
    void store.append([event])
  }
}

await programs[name]()
