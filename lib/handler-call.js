'use strict'

const { AsyncLocalStorage } = require('node:async_hooks')

/** The handler call that the running code belongs to, over every `await`. */
const running = new AsyncLocalStorage()

/**
 * One call of a stream's handler, until what it returned has settled.
 *
 * A handler may wait for the end of a stream, by `unsubscribe`, `close` or a registration. Where
 * that stream's own call waits for this one, it would be for ever: so each call knows what it waits
 * for, and nobody waits in a circle.
 */
class HandlerCall {
  isOver = false
  /** The streams that this call waits for. */
  #awaited

  run(handle, records) {
    return running.run(this, handle, records)
  }

  end() {
    this.isOver = true
    this.#awaited = undefined
  }

  /** @returns a function that takes it back */
  waitFor(stream) {
    this.#awaited ??= new Set()
    this.#awaited.add(stream)
    return () => this.#awaited?.delete(stream)
  }

  /** Whether the end of `stream` depends on the end of this call. */
  holdsUp(stream, seen = new Set()) {
    const { call } = stream
    if (call === undefined || seen.has(call)) return false
    if (call === this) return true
    seen.add(call)
    for (const next of call.#awaited ?? []) {
      if (this.holdsUp(next, seen)) return true
    }
    return false
  }
}

/** The handler call that the caller is part of, if it still runs. */
function callingHandler() {
  const call = running.getStore()
  return call === undefined || call.isOver ? undefined : call
}

module.exports = { HandlerCall, callingHandler }
