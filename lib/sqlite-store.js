'use strict'

const { NativeSqliteStore } = require('../native.js')
const { takeBoolean, takeOptions } = require('./arguments.js')
const { Failure, FactstrError, settle } = require('./error.js')
const { Operations } = require('./operations.js')
const { openPage } = require('./records.js')
const { Store } = require('./store.js')

const OPTIONS = ['durability', 'busyTimeoutMs', 'readOnly']
/** Beyond this a timer of the platform would overflow: 24 days. */
const LONGEST_WAIT = 2 ** 31 - 1

/** With fewer operations in flight a short query is read on this thread; with more, it has to do. */
const ALONE = 4

/** Opens the file with the first operation; what is asked meanwhile waits in the order of the calls. */
class SqliteBackend {
  closed = false
  #path
  #options
  #operations
  /** `undefined` until opened, and again after opening has failed. */
  #opening
  #isOpen = false
  /** Operations that wait for the file. */
  #waiting = []
  #closing

  constructor(path, options) {
    this.#path = path
    this.#options = options
  }

  /** @returns a promise of a `Failure`, or of nothing. */
  open() {
    this.#opening ??= this.#open()
    return this.#opening
  }

  async #open() {
    let failure
    try {
      const options = takeSqliteOptions(this.#path, this.#options)
      this.#operations ??= new Operations(NativeSqliteStore)
      const { native } = this.#operations
      const opened = await this.#operations.start((id) => native.open(id, this.#path, options))
      if (opened instanceof Failure) failure = opened
    } catch (error) {
      failure = new Failure(error.code ?? 'BackendFailure', error.message)
    }
    this.#isOpen = failure === undefined
    if (!this.#isOpen) this.#opening = undefined
    const waiting = this.#waiting
    this.#waiting = []
    for (const { begin, resolve } of waiting) {
      resolve(failure ?? this.#operations.start(begin))
    }
    return failure
  }

  #run(begin) {
    if (this.#isOpen) return this.#operations.start(begin)
    return new Promise((resolve) => {
      this.#waiting.push({ begin, resolve })
      this.open()
    })
  }

  append(events) {
    return this.#run((id) => this.#operations.native.append(id, events, null, -1))
  }

  appendIf(events, filters, expected) {
    return this.#run((id) => this.#operations.native.append(id, events, filters, expected))
  }

  page(filters, request) {
    if (this.#isOpen && request.version && this.#operations.inFlight < ALONE) {
      const text = this.#operations.native.pageInline(filters, request.after, request.maxRows)
      if (typeof text === 'string') return openPage(text)
    }
    const { after, before, backwards, maxRows, version } = request
    return this.#run((id) =>
      this.#operations.native.page(id, filters, after, before, backwards, maxRows, version)
    )
  }

  head() {
    return this.#run((id) => this.#operations.native.head(id))
  }

  close() {
    this.closed = true
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close() {
    await this.#opening
    if (!this.#isOpen) return undefined
    return this.#operations.start((id) => this.#operations.native.close(id))
  }
}

function takeSqliteOptions(path, given) {
  if (typeof path !== 'string') {
    throw new FactstrError('InvalidOptions', 'path: must be a string')
  }
  const options = takeOptions(given, OPTIONS)
  const durability = options.durability ?? 'full'
  if (durability !== 'full' && durability !== 'normal') {
    throw new FactstrError('InvalidOptions', "options.durability: must be 'full' or 'normal'")
  }
  const busyTimeout = options.busyTimeoutMs ?? 5000
  if (!Number.isInteger(busyTimeout) || busyTimeout < 0 || busyTimeout > LONGEST_WAIT) {
    const range = `an integer from 0 to ${LONGEST_WAIT}`
    throw new FactstrError('InvalidOptions', `options.busyTimeoutMs: must be ${range}`)
  }
  const readOnly = takeBoolean(options.readOnly, 'options.readOnly')
  return { normal: durability === 'normal', busyTimeout, readOnly }
}

class FactstrSqliteStore extends Store {
  #backend

  constructor(path, options) {
    const backend = new SqliteBackend(path, options)
    super(backend)
    this.#backend = backend
  }

  static async open(path, options) {
    const store = new this(path, options)
    settle(await store.#backend.open())
    return store
  }
}

module.exports = { FactstrSqliteStore }
