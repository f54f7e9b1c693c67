'use strict'

const { AsyncResource } = require('node:async_hooks')
const { isAbsolute, join } = require('node:path')

const { NativeSqliteStore } = require('../native.js')
const { takeBoolean, takeOptions } = require('./arguments.js')
const { Failure, FactstrError, messageOf, settle } = require('./error.js')
const { Operations } = require('./operations.js')
const { openPage } = require('./records.js')
const { Store } = require('./store.js')
const { Streams } = require('./streams.js')

const OPTIONS = ['durability', 'busyTimeoutMs', 'readOnly']
/** Beyond this a timer of the platform would overflow: 24 days. */
const LONGEST_WAIT = 2 ** 31 - 1

/** With fewer operations in flight a short query is read on this thread; with more, it has to do. */
const ALONE = 4

/** Opens the file with the first operation; what is asked meanwhile waits in the order of the calls. */
class SqliteBackend {
  closed = false
  /** Path and options as they were given: what is changed later is another store's. */
  #given
  #operations
  /** Made when first used. */
  #streams
  /** `undefined` until opened, and again after opening has failed. */
  #opening
  #isOpen = false
  /** Operations that wait for the file. */
  #waiting = []
  #closing

  constructor(path, options) {
    try {
      this.#given = takeSqliteOptions(path, options)
    } catch (error) {
      // A constructor does not throw; the first operation tells.
      this.#given = new Failure(error.code ?? 'InvalidOptions', error.message)
    }
  }

  /** @returns a promise of a `Failure`, or of nothing. */
  open() {
    this.#opening ??= this.#open()
    return this.#opening
  }

  async #open() {
    let failure
    try {
      const { path, options } = settle(this.#given)
      this.#operations ??= new Operations((onAnswers) => new NativeSqliteStore(onAnswers))
      const { native } = this.#operations
      const opened = await this.#operations.start((id) => native.open(id, path, options))
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
        // Whoever waits for the file is told by an answer, and nobody else.
        return new Failure(cause.code ?? 'BackendFailure', messageOf(cause), { cause })
      }
    })
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
    // What was asked before is begun when the file is open, streams included.
    await this.#opening
    if (!this.#isOpen) return undefined
    // The native side ends the streams, but only their own answers tell when all is told.
    const closed = this.#operations.start((id) => this.#operations.native.close(id))
    await this.#streams?.ended()
    return closed
  }
}

function takeSqliteOptions(path, given) {
  if (typeof path !== 'string') {
    throw new FactstrError('InvalidOptions', 'path: must be a string')
  }
  if (!path.isWellFormed()) {
    throw new FactstrError('InvalidOptions', 'path: contains a lone surrogate')
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
  return {
    path: absolute(path),
    options: { normal: durability === 'normal', busyTimeout, readOnly }
  }
}

/** A relative path as of now; what names no file stays as it is, for the native side to refuse. */
function absolute(path) {
  if (path === '' || path === ':memory:' || isAbsolute(path)) return path
  return join(process.cwd(), path)
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
