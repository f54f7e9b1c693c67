// Runs one of these programs by name; its output and end are what a test looks at.

import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'

import { storeAt } from './place.mjs'

const [name, place] = isMainThread ? process.argv.slice(2) : workerData
const event = { event_type: 'a', payload: { x: 1 } }
const model = { name: 'model' }

const open = () => storeAt(place)

/** Something that does not keep the process alive. */
function later(call) {
  setTimeout(call, 20).unref()
}

/** Keeps the thread for a moment. */
function spin(milliseconds) {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

/** Streams that were let go, and more for them to handle than they have handled when it is there. */
async function backlog(store, batches, handle) {
  const subscriptions = [
    await store.streamAll(handle),
    await store.streamAllDurable(model, async () => handle())
  ]
  for (const subscription of subscriptions) subscription.unref()
  await Promise.all(Array.from({ length: batches }, () => store.append([event])))
}

const never = () => new Promise(() => {})

function worker(program) {
  const script = fileURLToPath(import.meta.url)
  return new Worker(script, { workerData: [program, place] })
}

const programs = {
  /** A stream is all that keeps this process alive until it is unsubscribed. */
  async alive() {
    const store = open()
    const subscription = await store.streamAll(() => {
      console.log('delivered')
      void subscription.unsubscribe()
    })
    later(() => store.append([event]))
    void subscription.closed.then(({ reason }) => console.log(reason))
  },

  /** The same, for a durable stream that has an idle moment first, and is let go afterwards. */
  async released() {
    const store = open()
    const subscription = await store.streamAllDurable(model, () => {
      console.log('delivered')
      subscription.unref()
    })
    subscription.unref()
    subscription.ref()
    later(() => store.append([event]))
  },

  /** Nothing else keeps it alive, so it ends. */
  async unref() {
    const store = open()
    await store.append([event])
    const subscriptions = [
      await store.streamAll(() => {}),
      await store.streamAllDurable(model, () => {})
    ]
    for (const subscription of subscriptions) subscription.unref()
    console.log('registered')
  },

  /** What they have not handled keeps it alive no more than they do. */
  async backlog() {
    const handled = []
    process.on('exit', () => console.log(handled.length < 6000 ? 'ended before' : 'ended after'))
    await backlog(open(), 3000, () => {
      handled.push(event)
      spin(2)
    })
    while (handled.length < 10) {
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
  },

  /** While it is alive for another reason, they work. */
  async company() {
    const company = setInterval(() => {}, 1_000_000)
    let handled = 0
    await backlog(open(), 1000, () => {
      if (++handled === 2000) clearInterval(company)
      spin(0.1)
    })
    process.on('exit', () => console.log(`handled ${handled}`))
  },

  /** One that was not let go is served to its end, and so is one that was let go only for a while. */
  async beside() {
    const store = open()
    let handled = 0
    const subscriptions = []
    const handle = async () => {
      handled++
      spin(0.1)
      if (handled === 1000) for (const { unsubscribe } of subscriptions) unsubscribe()
    }
    for (const which of ['held', 'held again']) {
      const subscription = await store.streamAllDurable({ name: which }, handle)
      subscriptions.push({ unsubscribe: () => void subscription.unsubscribe(), subscription })
    }
    subscriptions[1].subscription.unref()
    await backlog(store, 500, () => spin(1))
    subscriptions[1].subscription.ref()
    process.on('exit', () => console.log(`handled ${handled}`))
  },

  /** Operations are answered, whatever streams that were let go have to do. */
  async operations() {
    const store = open()
    await backlog(store, 3000, () => spin(1))
    for (let n = 0; n < 20; n++) {
      await store.append([event])
      await store.query({}, { limit: 10 })
      await store.headSequenceNumber()
      await store.listDurableStreams()
    }
    console.log('answered')
  },

  /** Nobody holds the store or the subscription, and yet they work. */
  async garbage() {
    const delivered = []
    await (async () => {
      const store = open()
      await store.streamAll((records) => {
        delivered.push(records)
      })
      await store.streamAllDurable(model, async (records) => {
        delivered.push(records)
      })
      for (let n = 0; n < 3; n++) void store.append([event])
    })()
    while (delivered.length < 6) {
      globalThis.gc()
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    }
    console.log(`delivered ${delivered.length}`)
    process.exit(0)
  },

  /** Ends in a handler, while others never settle. */
  async exit() {
    const store = open()
    await store.streamAllDurable(model, never)
    await store.streamAll(never)
    await store.streamAll(() => process.exit(7))
    for (let n = 0; n < 100; n++) void store.append([event])
  },

  /** The application's own mistakes end the process as they always do. */
  async uncaught() {
    const store = open()
    await store.streamAllDurable(model, async () => {
      setImmediate(() => {
        throw new Error('of the application')
      })
      await never()
    })
    for (let n = 0; n < 100; n++) void store.append([event])
  },

  async rejection() {
    const store = open()
    await store.streamAll(() => {
      void Promise.reject(new Error('of the application'))
    })
    for (let n = 0; n < 100; n++) void store.append([event])
  },

  /** What a stream does never becomes an unhandled rejection. */
  async handled() {
    process.on('unhandledRejection', (reason) => console.log(`unhandled: ${reason}`))
    process.on('warning', ({ code }) => console.log(code))
    const store = open()
    await store.streamAllDurable(model, () => Promise.reject(new Error('rejected')))
    await store.append([event])
  },

  /** What a handler that hangs has not taken does not pile up. */
  async stuck() {
    const store = open()
    await store.streamAll(never)
    await store.streamAllDurable(model, never)
    const large = { event_type: 'large', payload: 'x'.repeat(10_000) }
    const write = () => Promise.all(Array.from({ length: 100 }, () => store.append([large])))
    for (let n = 0; n < 20; n++) await write()
    globalThis.gc()
    const before = process.memoryUsage().rss
    for (let n = 0; n < 300; n++) await write()
    globalThis.gc()
    const grown = process.memoryUsage().rss - before
    console.log(grown < 100_000_000 ? 'flat' : `grown by ${grown} bytes for 300,000,000`)
    process.exit(0)
  },

  /** Workers that are stopped while their streams work, wait and hang. */
  async workers() {
    for (let n = 0; n < 6; n++) {
      const busy = worker('busy')
      await new Promise((resolve) => {
        busy.once('message', resolve)
      })
      await busy.terminate()
    }
    const polite = worker('unref')
    polite.stdout.resume()
    const code = await new Promise((resolve) => {
      polite.on('exit', resolve)
    })
    console.log(`polite ${code}`)
  },

  async busy() {
    const store = open()
    await store.streamAll(never)
    await store.streamAll(() => {})
    let count = 0
    const many = async (records) => {
      count += records.length
      if (count > 200) parentPort.postMessage('busy')
      await store.append([event])
    }
    await store.streamAllDurable({ name: `busy-${Math.random()}` }, many)
    for (let n = 0; n < 300; n++) void store.append([event])
  }
}

await programs[name]()
