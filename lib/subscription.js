'use strict'

/** What a registration resolves to: a handle of a stream. Without it the stream runs on. */
class EventStreamSubscription {
  #stream

  constructor(stream) {
    this.#stream = stream
  }

  get closed() {
    return this.#stream.closed
  }

  get position() {
    return BigInt(this.#stream.position)
  }

  unsubscribe() {
    return this.#stream.unsubscribe()
  }

  ref() {
    this.#stream.hold(true)
    return this
  }

  unref() {
    this.#stream.hold(false)
    return this
  }

  [Symbol.dispose]() {
    void this.unsubscribe()
  }
}

// Node.js 20 before 20.4 has no Symbol.dispose; then the method has a name nobody asks for.
module.exports = { EventStreamSubscription }
