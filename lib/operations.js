'use strict'

const { Failure } = require('./error.js')
const { openPage } = require('./records.js')
const { UNKNOWN, atOnce, costOf, inTurn, whenAsked } = require('./turns.js')

/** Numbers per answer: kind, id, and two more. */
const WIDTH = 4
const [APPENDED, CONFLICT, PAGE, NUMBER, DONE, TEXT, WOKEN] = [0, 1, 2, 3, 4, 6, 7]

/** Operations handed to the native side at once; more wait here, in order. */
const MOST_IN_FLIGHT = 4096
/** The most characters of large operations in flight; `LARGE` ones count, the others are few then. */
const MOST_WEIGHT = 64 * 1024 * 1024
const LARGE = 16 * 1024

/** Those with operations in flight stay alive, whether or not anyone holds them. */
const busy = new Set()

/** The operations in flight of one store: each gets an id, and its promise the answer. */
class Operations {
  #native
  #inFlight = new Map()
  /** What large operations in flight weigh, and together. */
  #weights = new Map()
  #weight = 0
  #lined = []
  #lastId = 0
  #isFlushing = false
  /** Operations in flight keep the process alive. */
  #isBusy = false
  /** What was taken from the native side, and how far it is passed on. */
  #numbers = []
  #at = 0
  #texts = []
  #text = 0
  /** How many reasons there are to keep the process alive. */
  #holding = 0
  #onWoken

  /**
   * @param open makes the native side, given a function to call when there are answers
   * @param onWoken is called with the id of each stream that has something to take
   */
  constructor(open, onWoken) {
    // The native side holds this function as long as it lives, so it must not hold the store.
    const self = new WeakRef(this)
    this.#native = open(() => self.deref()?.#passOn())
    this.#onWoken = onWoken
  }

  get native() {
    return this.#native
  }

  get inFlight() {
    return this.#inFlight.size
  }

  /**
   * Keeps the process alive until it is called as often with `false`.
   *
   * @returns whether the native side was told, and calls when it has answers again
   */
  hold(alive) {
    this.#holding += alive ? 1 : -1
    const isTold = this.#holding === (alive ? 1 : 0)
    if (isTold) this.#native.hold(alive)
    return isTold
  }

  /**
   * @param begin is called with an id, in the order of the calls of `start`
   * @param weight characters that the operation holds in memory
   */
  start(begin, weight = 0) {
    return new Promise((resolve) => {
      const operation = { begin, resolve, weight: weight < LARGE ? 0 : weight }
      if (this.#lined.length > 0 || !this.#hasRoomFor(operation)) this.#lined.push(operation)
      else this.#begin(operation)
    })
  }

  #hasRoomFor({ weight }) {
    if (this.#inFlight.size >= MOST_IN_FLIGHT) return false
    return this.#weight === 0 || this.#weight + weight <= MOST_WEIGHT
  }

  #begin({ begin, resolve, weight }) {
    if (!this.#isBusy) {
      this.#isBusy = true
      this.hold(true)
      busy.add(this)
    }
    const id = ++this.#lastId
    this.#inFlight.set(id, resolve)
    if (weight > 0) {
      this.#weights.set(id, weight)
      this.#weight += weight
    }
    try {
      begin(id)
      this.#flushSoon()
    } catch (error) {
      this.#settle(id, new Failure('BackendFailure', error.message))
      if (this.#inFlight.size === 0) this.#rest()
    }
  }

  /** What one turn asks for is handed over together: one wake-up of a thread, and one group to commit. */
  #flushSoon() {
    if (this.#isFlushing) return
    this.#isFlushing = true
    whenAsked(() => {
      this.#isFlushing = false
      this.#native.flush?.()
    })
  }

  #settle(id, answer) {
    const resolve = this.#inFlight.get(id)
    this.#inFlight.delete(id)
    if (this.#weight > 0) {
      this.#weight -= this.#weights.get(id) ?? 0
      this.#weights.delete(id)
    }
    resolve(answer)
  }

  #passOn() {
    const left = () => (this.#numbers.length - this.#at) / WIDTH
    atOnce(this.#passOneOn, left, () => this.#holding > 0)
  }

  /** @returns what the next answer is expected to cost, if there is one */
  #passOneOn = () => {
    if (this.#at === this.#numbers.length) {
      const { numbers, texts } = this.#native.takeAnswers()
      this.#numbers = numbers
      this.#texts = texts
      this.#at = this.#text = 0
      if (numbers.length === 0) return undefined
    }
    const [numbers, at] = [this.#numbers, this.#at]
    this.#at += WIDTH
    const id = numbers[at + 1]
    const nextText = () => this.#texts[this.#text++]
    if (numbers[at] === WOKEN) this.#onWoken(id)
    else this.#settle(id, read(numbers, at, nextText))
    while (this.#lined.length > 0 && this.#hasRoomFor(this.#lined[0])) {
      this.#begin(this.#lined.shift())
    }
    if (this.#at < numbers.length) return this.#costOfNext()
    this.#texts = []
    const isTold = this.#isBusy && this.#inFlight.size === 0 && this.#rest()
    // What is in flight keeps the process alive, and so does a stream, unless it was let go.
    if (!isTold) inTurn(this.#passOneOn, this.#holding > 0)
    return undefined
  }

  #costOfNext() {
    const asked = this.#weights.get(this.#numbers[this.#at + 1]) ?? 0
    const told = this.#numbers[this.#at] === PAGE ? this.#texts[this.#text].length : 0
    return Math.max(UNKNOWN, costOf(Math.max(asked, told)))
  }

  /** Nothing is in flight, so nothing of it keeps the process alive. */
  #rest() {
    this.#isBusy = false
    busy.delete(this)
    return this.hold(false)
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
    case TEXT:
      return nextText()
    default:
      return new Failure(nextText(), nextText())
  }
}

module.exports = { Operations }
