// Servers that live no longer than this process, and their folder: see supervisor.mjs.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('supervisor.mjs', import.meta.url))

export class Supervised {
  #child
  #waiting = new Map()
  #last = 0

  constructor() {
    // A session of its own, so that Ctrl-C in a terminal reaches it by its parent's end only.
    this.#child = fork(program, [], { detached: true, execArgv: [], stdio: 'inherit' })
    this.#child.on('message', ({ id, value, failure }) => {
      const { resolve, reject } = this.#waiting.get(id)
      this.#settle(id)
      if (failure === undefined) resolve(value)
      else reject(new Error(failure))
    })
    this.#child.on('exit', () => {
      for (const [id, { reject }] of this.#waiting) {
        this.#settle(id)
        reject(new Error('the supervisor of the servers ended'))
      }
    })
    this.#child.unref()
    this.#child.channel.unref()
  }

  #settle(id) {
    this.#waiting.delete(id)
    if (this.#waiting.size === 0) this.#child.channel?.unref()
  }

  /** Gives a command of the supervisor, and resolves to its answer. */
  call(command, rest = {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last
      this.#waiting.set(id, { resolve, reject })
      this.#child.channel?.ref()
      this.#child.send({ id, command, ...rest }, (error) => {
        if (!error) return
        this.#settle(id)
        reject(error)
      })
    })
  }

  /** Stops all servers and removes the folder. */
  async end() {
    if (this.#child.exitCode !== null || !this.#child.connected) return
    await this.call('over')
    const exited = once(this.#child, 'exit')
    this.#child.ref()
    this.#child.disconnect()
    await exited
  }
}
