'use strict'

const { NativeMemoryStore } = require('../native.js')
const { Failure } = require('./error.js')
const { openPage } = require('./records.js')
const { Store } = require('./store.js')
const { inTurn } = require('./turns.js')

/** Answers at once; only the later pages of a long result wait for a turn of the event loop. */
class MemoryBackend {
  closed = false
  #native = new NativeMemoryStore()

  append(events) {
    return answer(() => this.#native.append(events))
  }

  appendIf(events, filters, expected) {
    return answer(() => this.#native.appendIf(events, filters, expected))
  }

  page(filters, request) {
    const { after, before, backwards, maxRows, version } = request
    const take = () =>
      answer(() => openPage(this.#native.page(filters, after, before, backwards, maxRows, version)))
    if (before === -1) return take()
    return new Promise((resolve) => {
      inTurn(() => resolve(take()))
    })
  }

  head() {
    return answer(() => this.#native.head())
  }

  close() {
    this.closed = true
    this.#native.close()
  }
}

function answer(ask) {
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
