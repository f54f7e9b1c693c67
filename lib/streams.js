'use strict'

const { Failure, messageOf } = require('./error.js')
const { callingHandler } = require('./handler-call.js')
const { Operations } = require('./operations.js')
const { isAborted, offAbort, onAbort } = require('./signals.js')
const { Stream } = require('./stream.js')
const { beginTurn } = require('./handler-turns.js')

/** Those with streams stay alive, whether or not anyone holds them. */
const busy = new Set()

/** The streams of one store, and the questions about durable ones. */
class Streams {
  #operations
  #streams = new Map()
  #lastId = 0

  /** @param open makes the native side, given a function to call when there are answers */
  constructor(open) {
    const streams = this.#streams
    this.#operations = new Operations(open, (id) => {
      beginTurn()
      streams.get(id)?.wake()
    })
  }

  /** @returns the stream that runs from now on, or a failure */
  register(request) {
    const { filters, name, wait, maxEventsPerCall, retry, signal } = request
    const id = ++this.#lastId
    let stream
    const abort = () => stream?.stop()
    try {
      if (signal !== undefined) onAbort(signal, abort)
    } catch (cause) {
      return new Failure('InvalidOptions', `options.signal: ${messageOf(cause)}`, { cause })
    }
    let native
    try {
      native = this.#operations.native.register(id, {
        filters,
        name,
        wait: wait ?? false,
        maxEventsPerCall: maxEventsPerCall ?? 0,
        attempts: retry?.attempts ?? -1,
        initialDelayMs: retry?.initialDelayMs ?? -1,
        maxDelayMs: retry?.maxDelayMs ?? -1
      })
    } catch (error) {
      offAbort(signal, abort)
      return new Failure(error.code, error.message)
    }
    stream = new Stream(native, request, (alive) => this.#operations.hold(alive))
    stream.closed.then(() => offAbort(signal, abort))
    // It may have aborted while the store was being opened.
    if (isAborted(signal)) stream.stop()
    this.#run(id, stream)
    return stream
  }

  async #run(id, stream) {
    this.#streams.set(id, stream)
    busy.add(this)
    // A handler that registers a stream waits for it, as far as anyone can tell.
    const forget = callingHandler()?.waitFor(stream)
    if (forget !== undefined) stream.registered.then(forget)
    await stream.run()
    this.#streams.delete(id)
    if (this.#streams.size === 0) busy.delete(this)
  }

  /** @returns a promise of JSON text or of a failure */
  list() {
    return this.#operations.start((id) => this.#operations.native.list(id))
  }

  reset(name, after) {
    return this.#operations.start((id) => this.#operations.native.reset(id, name, after))
  }

  delete(name) {
    return this.#operations.start((id) => this.#operations.native.delete(id, name))
  }

  /** Resolves when all streams have ended. */
  async ended() {
    await Promise.all(Array.from(this.#streams.values(), (stream) => stream.closed))
  }

  /** As much of `whole`, the end of everything, as does not wait for the calling handler itself. */
  waitable(whole) {
    const caller = callingHandler()
    if (caller === undefined) return whole
    const streams = [...this.#streams.values()]
    const isHeldUp = streams.some((stream) => caller.holdsUp(stream))
    const ends = streams.map((stream) => stream.ended())
    return isHeldUp ? Promise.all(ends).then(() => undefined) : whole
  }
}

module.exports = { Streams }
