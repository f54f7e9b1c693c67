'use strict'

const { Failure } = require('./error.js')
const { openPage } = require('./records.js')
const { inTurn } = require('./turns.js')

/** Numbers per answer: kind, id, and two more. */
const WIDTH = 4
const [APPENDED, CONFLICT, PAGE, NUMBER, DONE] = [0, 1, 2, 3, 4]

/** Operations handed to the native side at once; more wait here, in order. */
const MOST_IN_FLIGHT = 4096

/** Those with operations in flight stay alive, whether or not anyone holds them. */
const busy = new Set()

/** The operations in flight of one store: each gets an id, and its promise the answer. */
class Operations {
  #native
  #inFlight = new Map()
  #lined = []
  #lastId = 0

  /** @param Native the class of the native store */
  constructor(Native) {
    // The native side holds this function as long as it lives, so it must not hold the store.
    const self = new WeakRef(this)
    this.#native = new Native(() => self.deref()?.#takeAnswers())
  }

  get native() {
    return this.#native
  }

  get inFlight() {
    return this.#inFlight.size
  }

  /** @param begin is called with an id, in the order of the calls of `start` */
  start(begin) {
    return new Promise((resolve) => {
      if (this.#inFlight.size >= MOST_IN_FLIGHT) this.#lined.push({ begin, resolve })
      else this.#begin(begin, resolve)
    })
  }

  #begin(begin, resolve) {
    if (this.#inFlight.size === 0) {
      this.#native.hold(true)
      busy.add(this)
    }
    const id = ++this.#lastId
    this.#inFlight.set(id, resolve)
    try {
      begin(id)
    } catch (error) {
      this.#settle(id, new Failure('BackendFailure', error.message))
      if (this.#inFlight.size === 0) this.#rest()
    }
  }

  #settle(id, answer) {
    const resolve = this.#inFlight.get(id)
    this.#inFlight.delete(id)
    resolve(answer)
  }

  #takeAnswers() {
    const { numbers, texts } = this.#native.takeAnswers()
    let text = 0
    for (let at = 0; at < numbers.length; at += WIDTH) {
      const answer = read(numbers, at, () => texts[text++])
      this.#settle(numbers[at + 1], answer)
    }
    while (this.#lined.length > 0 && this.#inFlight.size < MOST_IN_FLIGHT) {
      const { begin, resolve } = this.#lined.shift()
      this.#begin(begin, resolve)
    }
    if (this.#inFlight.size === 0) this.#rest()
    else if (numbers.length > 0) inTurn(() => this.#takeAnswers())
  }

  /** Nothing is in flight, so nothing keeps the process alive. */
  #rest() {
    this.#native.hold(false)
    busy.delete(this)
  }
}

function read(numbers, at, nextText) {
  switch (numbers[at]) {
    case APPENDED:
      return { first: numbers[at + 2], last: numbers[at + 3] }
    case CONFLICT:
      return { first: -1, last: numbers[at + 2] }
    case PAGE:
      return openPage(nextText())
    case NUMBER:
      return numbers[at + 2]
    case DONE:
      return undefined
    default:
      return new Failure(nextText(), nextText())
  }
}

module.exports = { Operations }
