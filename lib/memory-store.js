'use strict'

const { NativeMemoryStore } = require('../native.js')
const { Failure } = require('./error.js')
const { openPage } = require('./records.js')
const { Store } = require('./store.js')
const { Streams } = require('./streams.js')
const { costOf, inTurn, isOverdue, othersWait } = require('./turns.js')

/**
 * Works at once. Answers come at once, unless the event loop is due or others wait for their turn of it; later pages of a
 * long result wait for its next turn.
 */
class MemoryBackend {
  closed = false
  #native = new NativeMemoryStore()
  /** Made when first used. */
  #streams
  #closing

  append(events) {
    return answer(() => this.#native.append(events), events.length)
  }

  appendIf(events, filters, expected) {
    return answer(() => this.#native.appendIf(events, filters, expected), events.length)
  }

  page(filters, request) {
    const { after, before, backwards, maxRows, version } = request
    const take = () =>
      openPage(this.#native.page(filters, after, before, backwards, maxRows, version))
    if (before === -1) return answer(take)
    return new Promise((resolve) => {
      inTurn(() => resolve(resultOf(take)))
    })
  }

  head() {
    return answer(() => this.#native.head())
  }

  register(request) {
    return this.#streaming().register(request)
  }

  listStreams() {
    return this.#streaming().list()
  }

  resetStream(name, after) {
    return this.#streaming().reset(name, after)
  }

  deleteStream(name) {
    return this.#streaming().delete(name)
  }

  #streaming() {
    this.#streams ??= new Streams((onAnswers) => this.#native.streams(onAnswers))
    return this.#streams
  }

  close() {
    this.closed = true
    this.#native.close()
    if (this.#streams === undefined) return undefined
    this.#closing ??= this.#streams.ended()
    return this.#streams.waitable(this.#closing)
  }
}

/** @param length characters of what is asked */
function answer(ask, length = 0) {
  const result = resultOf(ask)
  if (!othersWait() && !isOverdue()) return result
  return new Promise((resolve) => {
    inTurn(() => resolve(result), true, costOf(length))
  })
}

function resultOf(ask) {
  try {
    return ask()
  } catch (error) {
    return new Failure(error.code, error.message)
  }
}

class FactstrMemoryStore extends Store {
  constructor() {
    super(new MemoryBackend())
  }
}

module.exports = { FactstrMemoryStore }
