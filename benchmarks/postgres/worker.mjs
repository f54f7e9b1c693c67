// A process beside the one that measures, with a store of its own on the same schema.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { FactstrPostgresStore } from '../../index.js'
import { decide, lanes, wandering } from '../loops.mjs'

/** The end of this process that measures. */
export class Worker {
  #child
  #ended

  /** `which`: from 1, so that no two make the same items. */
  static async start({ url, schema, items, which }) {
    const worker = new Worker()
    worker.#child = fork(fileURLToPath(import.meta.url), [
      'work',
      ...[url, schema, items, which].map(String)
    ])
    worker.#ended = once(worker.#child, 'exit')
    await worker.#answer()
    return worker
  }

  async #answer() {
    const ended = this.#ended.then(([code, signal]) => {
      throw new Error(`a process that measures has ended: ${signal ?? `code ${code}`}`)
    })
    const [{ value }] = await Promise.race([once(this.#child, 'message'), ended])
    return value
  }

  /** Runs one of the commands below. */
  ask(command) {
    this.#child.send(command)
    return this.#answer()
  }

  async end() {
    this.#child.disconnect()
    await this.#ended
  }
}

const COMMANDS = {
  /** Loops on distinct contexts; how many a second. */
  async loops({ count, seconds }, { store, items, next, number }) {
    return lanes(count, seconds, () => decide(store, next(), number(), items))
  },

  /** Events one at a time, each with the time of its append. */
  async tell({ count }, { store }) {
    for (let n = 0; n < count; n++) {
      await pause(7)
      const at = performance.timeOrigin + performance.now()
      await store.append([{ event_type: 'told', payload: { at } }])
    }
  }
}

async function work([url, schema, items, which]) {
  const store = await FactstrPostgresStore.connect(url, { schema })
  let n = which * 1e9
  const own = {
    store,
    items: Number(items),
    next: wandering(Number(items), which * 1013),
    number: () => n++
  }
  process.on('message', async ({ command, ...options }) => {
    process.send({ value: await COMMANDS[command](options, own) })
  })
  process.on('disconnect', () => void store.close())
  process.send({})
}

if (process.argv[2] === 'work') await work(process.argv.slice(3))
