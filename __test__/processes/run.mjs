// Runs one of these programs by name; its output and end are what a test looks at.

import { stat } from 'node:fs'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'

import { FactstrMemoryStore } from '../../index.js'
import { besides, openAt, storeAt } from './place.mjs'

const [name, place] = isMainThread ? process.argv.slice(2) : workerData
const event = { event_type: 'a', payload: { x: 1, text: 'x'.repeat(100) } }

function worker(program) {
  return new Worker(fileURLToPath(import.meta.url), { workerData: [program, place] })
}

const programs = {
  /** Ends without close(), after everything in flight. */
  async unclosed() {
    const memory = new FactstrMemoryStore()
    const store = await openAt(place)
    await memory.append([event])
    await store.append([event])
    for await (const _ of store.read()) break
    store.append([event]).then(({ last_sequence_number: last }) => console.log(`last ${last}`))
  },

  /** Ends without close(), after appends so large that one waited for the other. */
  async large() {
    const store = await openAt(place)
    // A store that is collected would let the process end in any case.
    globalThis.kept = store
    const large = { event_type: 'large', payload: 'x'.repeat(14_000_000) }
    const batch = [large, large, large]
    const appended = await Promise.all([store.append(batch), store.append(batch)])
    console.log(`last ${appended[1].last_sequence_number}`)
  },

  /** Ends in the middle of operations. */
  async exit() {
    const store = await openAt(place)
    for (let n = 0; n < 500; n++) {
      store.append([event])
      store.query({ filters: [{ payload_predicates: [{ x: 1 }] }] })
    }
    setImmediate(() => process.exit(7))
  },

  /** Asks beside requests that come with the events of the system, each longer than the time of stores in a turn. */
  async turns() {
    const store = await openAt(place)
    await store.append([event])
    let requests = 600
    const isOver = () => requests <= 0
    const served = []
    const request = () => {
      if (requests-- <= 0) return
      stat(fileURLToPath(import.meta.url), request)
      served.push(store.query())
      const until = performance.now() + 2
      while (performance.now() < until);
    }
    let asked = 0
    const ask = async () => {
      for (; !isOver(); asked++) {
        await store.query()
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
    }
    const append = async () => {
      while (!isOver()) await store.append([event])
    }
    for (let n = 0; n < 3; n++) request()
    await Promise.all([ask(), ask(), append()])
    await Promise.all(served)
    console.log(asked > 60 ? 'asked often' : `asked ${asked} times`)
  },

  /** Forgets stores and results while operations are under way. */
  async garbage() {
    for (let n = 0; n < 200; n++) {
      const store = storeAt(besides(place, n % 5))
      void store.append([event, event])
      void store.query()
      if (n % 20 === 0) {
        globalThis.gc()
        await store.headSequenceNumber()
      }
    }
    globalThis.gc()
    console.log('collected')
  },

  /** A worker that ends by itself, and one that is stopped while it works. */
  async workers() {
    const polite = worker('unclosed')
    const code = await new Promise((resolve) => {
      polite.on('exit', resolve)
    })
    console.log(`polite ${code}`)
    for (let n = 0; n < 5; n++) {
      const busy = worker('busy')
      await new Promise((resolve) => {
        busy.once('message', resolve)
      })
      await busy.terminate()
    }
    const store = await openAt(place)
    const { first_sequence_number: first } = await store.append([event])
    let count = 0
    for await (const { sequence_number: number } of store.read()) {
      if (number !== BigInt(++count)) console.log('a gap')
    }
    console.log(BigInt(count) === first ? 'whole' : 'torn')
  },

  async busy() {
    const store = await openAt(place)
    const lanes = Array.from({ length: 16 }, async () => {
      for (let n = 0; ; n++) {
        await store.append([event])
        await store.query({}, { limit: 100 })
        if (n === 3) parentPort.postMessage('busy')
      }
    })
    await Promise.all(lanes)
  }
}

await programs[name]()
