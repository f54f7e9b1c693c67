'use strict'

const { AsyncResource } = require('node:async_hooks')

const { Failure, messageOf, settle } = require('./error.js')
const { Operations } = require('./operations.js')
const { Streams } = require('./streams.js')

/** A store that opens with the first operation; what is asked meanwhile waits in the order of the calls. */
class OpeningBackend {
  closed = false
  /** What to open, as it was given: what is changed later is another store's. */
  #given
  #Native
  #operations
  /** Made when first used. */
  #streams
  /** `undefined` until opened, and again after opening has failed. */
  #opening
  #isOpen = false
  /** Operations that wait until it is open. */
  #waiting = []
  #closing

  /**
   * @param Native the native store
   * @param take takes the arguments of its `open`, and may throw
   */
  constructor(Native, take) {
    this.#Native = Native
    try {
      this.#given = take()
    } catch (error) {
      // A constructor does not throw; the first operation tells.
      this.#given = new Failure(error.code ?? 'InvalidOptions', error.message, {
        cause: error.cause
      })
    }
  }

  /** @returns a promise of a `Failure`, or of nothing. */
  open() {
    this.#opening ??= this.#open()
    return this.#opening
  }

  async #open() {
    let failure
    // What fails at once must not be over before `open` knows of it.
    await null
    try {
      const given = settle(this.#given)
      this.#operations ??= new Operations((onAnswers) => new this.#Native(onAnswers))
      const { native } = this.#operations
      const opened = await this.#operations.start((id) => native.open(id, ...given))
      if (opened instanceof Failure) failure = opened
    } catch (error) {
      failure = new Failure(error.code ?? 'BackendFailure', error.message)
    }
    this.#isOpen = failure === undefined
    if (!this.#isOpen) this.#opening = undefined
    const waiting = this.#waiting
    this.#waiting = []
    for (const { begin, resolve } of waiting) resolve(failure ?? begin())
    return failure
  }

  #run(operation, weight = 0) {
    return this.#whenOpen(() => this.#operations.start(operation, weight))
  }

  #whenOpen(begin) {
    if (this.#isOpen) return begin()
    return new Promise((resolve) => {
      this.#waiting.push({ begin, resolve })
      this.open()
    })
  }

  #streaming(begin) {
    return this.#whenOpen(() => {
      try {
        this.#streams ??= new Streams((onAnswers) => this.#operations.native.streams(onAnswers))
        return begin(this.#streams)
      } catch (cause) {
        // Whoever waits until it is open is told by an answer, and nobody else.
        return new Failure(cause.code ?? 'BackendFailure', messageOf(cause), { cause })
      }
    })
  }

  /** The native side, once it is open and as long as it has fewer operations in flight. */
  nativeWithFewer(most) {
    return this.#isOpen && this.#operations.inFlight < most ? this.#operations.native : undefined
  }

  append(events) {
    return this.#run((id) => this.#operations.native.append(id, events, null, -1), events.length)
  }

  appendIf(events, filters, expected) {
    return this.#run(
      (id) => this.#operations.native.append(id, events, filters, expected),
      events.length
    )
  }

  page(filters, request) {
    const { after, before, backwards, maxRows, version } = request
    return this.#run((id) =>
      this.#operations.native.page(id, filters, after, before, backwards, maxRows, version)
    )
  }

  head() {
    return this.#run((id) => this.#operations.native.head(id))
  }

  register(request) {
    // A stream's handler is called in the context of its registration.
    return this.#streaming(AsyncResource.bind((streams) => streams.register(request)))
  }

  listStreams() {
    return this.#streaming((streams) => streams.list())
  }

  resetStream(name, after) {
    return this.#streaming((streams) => streams.reset(name, after))
  }

  deleteStream(name) {
    return this.#streaming((streams) => streams.delete(name))
  }

  close() {
    this.closed = true
    this.#closing ??= this.#close()
    return this.#streams?.waitable(this.#closing) ?? this.#closing
  }

  async #close() {
    // What was asked before is begun when it is open, streams included.
    await this.#opening
    if (!this.#isOpen) return undefined
    // The native side ends the streams, but only their own answers tell when all is told.
    const closed = this.#operations.start((id) => this.#operations.native.close(id))
    await this.#streams?.ended()
    return closed
  }
}

module.exports = { OpeningBackend }
