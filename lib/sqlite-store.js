'use strict'

const { isAbsolute, join } = require('node:path')

const { NativeSqliteStore } = require('../native.js')
const { takeBoolean, takeInteger, takeOptions, takeString } = require('./arguments.js')
const { FactstrError, settle } = require('./error.js')
const { OpeningBackend } = require('./opening-backend.js')
const { openPage } = require('./records.js')
const { Store } = require('./store.js')
const { inTurn, isOverdue } = require('./turns.js')

const OPTIONS = ['durability', 'busyTimeoutMs', 'readOnly']

/** With fewer operations in flight a short query is read on this thread; with more, it has to do. */
const ALONE = 4

class SqliteBackend extends OpeningBackend {
  /** Queries that wait for the next turn of the event loop. */
  #waiting = 0

  constructor(path, options) {
    super(NativeSqliteStore, () => takeSqliteOptions(path, options))
  }

  page(filters, request, isItsTurn = false) {
    const native = request.version ? this.nativeWithFewer(ALONE - this.#waiting) : undefined
    if (native === undefined) return super.page(filters, request)
    if (!isItsTurn && isOverdue()) return this.#pageNextTurn(filters, request)
    const text = native.pageInline(filters, request.after, request.maxRows)
    return typeof text === 'string' ? openPage(text) : super.page(filters, request)
  }

  /** Queries that are answered at once never let the event loop turn, which takes less than the way to another thread. */
  async #pageNextTurn(filters, request) {
    this.#waiting++
    await new Promise((resolve) => {
      inTurn(resolve)
    })
    this.#waiting--
    return this.page(filters, request, true)
  }
}

function takeSqliteOptions(path, given) {
  takeString(path, 'path')
  const options = takeOptions(given, OPTIONS)
  const durability = options.durability ?? 'full'
  if (durability !== 'full' && durability !== 'normal') {
    throw new FactstrError('InvalidOptions', "options.durability: must be 'full' or 'normal'")
  }
  const busyTimeout = takeInteger(options.busyTimeoutMs, 'options.busyTimeoutMs', 0, 5000)
  const readOnly = takeBoolean(options.readOnly, 'options.readOnly')
  return [absolute(path), { normal: durability === 'normal', busyTimeout, readOnly }]
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
