// The network before a PostgreSQL server, under a test's control: connections go through it, and it
// cuts, holds and refuses them at the message that the test says.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

import { onTestFinished } from 'vitest'

import { ClientMessages, ServerMessages } from './messages.mjs'

/**
 * Stands before a server, given by its URL or as `{ host, port }`, until the test is over. `url` of
 * what it resolves to is the same URL, through the proxy.
 */
export async function startProxy(target) {
  const url = typeof target === 'string' ? new URL(target) : undefined
  const { host, port } = url ? { host: url.hostname, port: url.port } : target
  const proxy = new Proxy({ host, port: Number(port || 5432) })
  await proxy.accept()
  onTestFinished(() => proxy.close())
  if (url) {
    url.hostname = '127.0.0.1'
    url.port = String(proxy.port)
    proxy.url = url.href
  }
  return proxy
}

class Proxy {
  /** Those that are open. */
  connections = new Set()
  /** How many there were in all. */
  accepted = 0
  #target
  #listener
  #rules = new Set()
  #opened = Promise.resolve()
  #open

  constructor(target) {
    this.#target = target
  }

  /** Takes connections, always on the same port. */
  async accept() {
    if (this.#listener) return
    this.#listener = createServer({ allowHalfOpen: true }, (client) => {
      this.accepted++
      this.connections.add(new Connection(this, client, this.#target))
    })
    this.#listener.listen(this.port ?? 0, '127.0.0.1')
    await once(this.#listener, 'listening')
    this.port = this.#listener.address().port
  }

  /** New connections find nobody there, until `accept`. Those that are open stay. */
  refuse() {
    this.#listener?.close()
    this.#listener = undefined
  }

  /** Resets every connection, on both sides. */
  cut() {
    for (const connection of this.connections) connection.cut()
  }

  /** Nothing gets through until `resume`, and nobody is told: a cable is pulled. */
  pause() {
    if (this.#open) return
    this.#opened = new Promise((resolve) => {
      this.#open = resolve
    })
  }

  resume() {
    this.#open?.()
    this.#open = undefined
  }

  /** Settles when nothing is paused. */
  get opened() {
    return this.#opened
  }

  /**
   * Cuts the connection of the first message that the predicate picks: `before`, in the `middle` of or
   * `after` it. The receiver gets what came until there and an orderly end, the sender a reset, and what
   * the receiver answers gets lost. The predicate gets `{ direction, type, body, text, connection }`, the
   * direction being `toServer` or `toClient`, and how many messages came before since this call.
   * Resolves to the connection when it has happened.
   */
  cutOn(predicate, { at = 'before' } = {}) {
    const kept = {
      before: () => 0,
      middle: ({ length }) => length >> 1,
      after: ({ length }) => length
    }
    return this.#once(predicate, { kept: kept[at] })
  }

  /** The same after just so many bytes more in one direction. */
  cutAfterBytes(count, direction) {
    let left = count
    const isReached = (message) => {
      if (message.direction !== direction) return false
      left -= message.bytes.length
      return left < 0
    }
    return this.#once(isReached, { kept: ({ length }) => length + left })
  }

  /** Holds the first message that the predicate picks, and all behind it, until it is released. */
  holdOn(predicate) {
    let release
    const released = new Promise((resolve) => {
      release = resolve
    })
    return { reached: this.#once(predicate, { released }), release }
  }

  #once(predicate, action) {
    return new Promise((resolve, reject) => {
      let count = 0
      const rule = {
        ...action,
        picks(message) {
          try {
            return predicate(message, count++)
          } catch (error) {
            reject(error)
            return false
          }
        },
        happened: (connection) => {
          this.#rules.delete(rule)
          resolve(connection)
        }
      }
      this.#rules.add(rule)
    })
  }

  /** What is to be done with a message, if anything. */
  ruleFor(message) {
    // Every rule counts every message.
    const [rule] = [...this.#rules].filter((each) => each.picks(message))
    rule?.happened(message.connection)
    return rule
  }

  close() {
    this.refuse()
    this.cut()
    this.resume()
  }
}

class Connection {
  #sockets
  #isOver = false

  constructor(proxy, client, target) {
    const server = connect({ ...target, allowHalfOpen: true })
    this.#sockets = [client, server]
    const shared = { isAsked: false, isEncrypted: false }
    this.#pump(proxy, client, server, 'toServer', new ClientMessages(shared))
    this.#pump(proxy, server, client, 'toClient', new ServerMessages(shared))
    for (const socket of this.#sockets) {
      socket.setNoDelay(true)
      socket.on('error', () => this.cut())
      socket.on('close', () => {
        if (this.#sockets.every(({ destroyed }) => destroyed)) proxy.connections.delete(this)
      })
    }
  }

  #pump(proxy, from, to, direction, messages) {
    const forward = async (chunk) => {
      for (const message of messages.take(chunk)) {
        if (this.#isOver) return
        const rule = proxy.ruleFor({ ...message, direction, connection: this })
        if (rule?.kept) {
          this.#end(from, to, message.bytes.subarray(0, rule.kept(message.bytes)))
          return
        }
        await rule?.released
        await proxy.opened
        if (this.#isOver || to.destroyed) return
        if (!to.write(message.bytes)) await drained(to)
      }
    }
    let forwarding = Promise.resolve()
    from.on('data', (chunk) => {
      from.pause()
      forwarding = forward(chunk).then(() => from.resume())
    })
    // A socket may tell its end while it is paused: what came before is to arrive before.
    from.on('end', async () => {
      await forwarding
      to.end()
    })
  }

  #end(from, to, last) {
    this.#isOver = true
    // The receiver handles what it has got before it sees the end.
    to.end(last)
    from.resetAndDestroy()
  }

  /** Resets both sides. */
  cut() {
    this.#isOver = true
    for (const socket of this.#sockets) {
      if (!socket.destroyed) socket.resetAndDestroy()
    }
  }
}

function drained(socket) {
  return new Promise((resolve) => {
    for (const event of ['drain', 'close']) socket.once(event, resolve)
  })
}
