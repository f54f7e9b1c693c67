'use strict'

const { FactstrError, settle } = require('./error.js')
const { recordAt } = require('./records.js')
const { isAborted, offAbort, onAbort } = require('./signals.js')

/** What `read` returns: every iteration over it starts anew. */
class Reading {
  #backend
  #request

  constructor(backend, request) {
    this.#backend = backend
    this.#request = request
  }

  [Symbol.asyncIterator]() {
    return new ReadIterator(this.#backend, this.#request)
  }
}

/** Holds one page, and fetches the next one while that is taken. */
class ReadIterator {
  #backend
  #request
  #page = { values: [], rows: 0 }
  #row = 0
  #taken = 0
  /** The page being fetched: an answer or a promise of one; `undefined` before the first. */
  #next
  /** Settles when the fill in progress is over; concurrent calls of `next` line up behind it. */
  #filling
  #done = false

  constructor(backend, request) {
    this.#backend = backend
    this.#request = request
  }

  [Symbol.asyncIterator]() {
    return this
  }

  next() {
    if (this.#filling !== undefined) {
      const again = () => this.next()
      return this.#filling.then(again, again)
    }
    const untaken = this.#row < this.#page.rows
    if (untaken && !isAborted(this.#request.signal) && !this.#backend.closed) {
      this.#taken++
      const { values, rows } = this.#page
      return Promise.resolve({ value: recordAt(values, rows, this.#row++), done: false })
    }
    // A read that was cut short before its last row is told so, also on its last page.
    if (this.#done && !untaken) return Promise.resolve({ value: undefined, done: true })
    const filling = this.#fill().finally(() => {
      this.#filling = undefined
    })
    this.#filling = filling
    return filling
  }

  async return(value) {
    this.#end()
    return { value, done: true }
  }

  async #fill() {
    try {
      const { error, signal } = this.#request
      if (error !== undefined) throw error
      signal?.throwIfAborted()
      if (this.#backend.closed) throw new FactstrError('StoreClosed', 'the store is closed')
      this.#next ??= this.#fetch(this.#request.after, this.#request.before)
      const page = settle(await abortable(this.#next, signal))
      signal?.throwIfAborted()
      if (this.#done || page.rows === 0) {
        this.#end()
        return { value: undefined, done: true }
      }
      this.#page = page
      this.#row = 1
      this.#taken++
      const { backwards, after, limit } = this.#request
      if (page.complete || this.#taken + page.rows - 1 >= limit) {
        this.#done = true
      } else {
        this.#next = backwards
          ? this.#fetch(after, page.last, page.rows - 1)
          : this.#fetch(page.last, page.before, page.rows - 1)
      }
      return { value: recordAt(page.values, page.rows, 0), done: false }
    } catch (error) {
      this.#end()
      throw error
    }
  }

  /** `untaken`: rows of the current page that the caller has not taken yet. */
  #fetch(after, before, untaken = 0) {
    const { filters, backwards, limit, pageSize } = this.#request
    const maxRows = Math.min(pageSize, limit - this.#taken - untaken)
    const answer = this.#backend.page(filters, {
      after,
      before,
      backwards,
      maxRows,
      version: false
    })
    // A failure is an answer, so this never rejects unheard.
    return answer
  }

  #end() {
    this.#done = true
    this.#page = { values: [], rows: 0 }
    this.#row = 0
    this.#next = undefined
  }
}

/** Rejects with the signal's reason as soon as it aborts. */
async function abortable(answer, signal) {
  if (signal === undefined) return answer
  let stop
  const aborted = new Promise((_, reject) => {
    stop = () => reject(signal.reason)
    onAbort(signal, stop)
  })
  try {
    return await Promise.race([answer, aborted])
  } finally {
    offAbort(signal, stop)
  }
}

module.exports = { Reading }
