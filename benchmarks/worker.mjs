// A process beside the one that measures, with a store of its own on the same file or database.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { decide, wandering } from './loops.mjs'
import { sample } from './measure.mjs'
import { openOurs } from './sides/ours.mjs'

/** The end of this process that measures. */
export class Worker {
  #child
  #ended

  /** `which`: from 1, so that no two make the same items. */
  static async start({ kind, place, items, which }) {
    const worker = new Worker()
    const settings = JSON.stringify({ kind, place, items, which })
    // The place may have a password, which arguments would show to everybody.
    const env = { ...process.env, FACTSTR_BENCH_WORKER: settings }
    worker.#child = fork(fileURLToPath(import.meta.url), ['work'], { env })
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
  async loops({ callers, seconds }, { store, items, next, number }) {
    return sample(() => decide(store, next(), number(), items), { callers, seconds })
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

async function work({ kind, place, items, which }) {
  const store = await openOurs(kind, place)
  let n = which * 1e9
  const own = { store, items, next: wandering(items, which * 1013), number: () => n++ }
  process.on('message', async ({ command, ...options }) => {
    process.send({ value: await COMMANDS[command](options, own) })
  })
  process.on('disconnect', () => void store.close())
  process.send({})
}

if (process.argv[2] === 'work') await work(JSON.parse(process.env.FACTSTR_BENCH_WORKER))
