'use strict'

const {
  encodeEvents,
  encodeQuery,
  encodeSequenceNumber,
  takeBoolean,
  takeOptions,
  takePositiveInteger,
  takeSignal
} = require('./arguments.js')
const { FactstrError, settle } = require('./error.js')
const { Reading } = require('./reading.js')
const { pushRecords } = require('./records.js')
const {
  takeDurableOptions,
  takeHandler,
  takeLiveOptions,
  takeStream
} = require('./stream-arguments.js')
const { EventStreamSubscription } = require('./subscription.js')

const READ_OPTIONS = ['after', 'before', 'limit', 'backwards', 'signal', 'pageSize']

/**
 * The public methods of every store. A backend answers, at once or by a promise, with a value or a
 * `Failure`; errors are made here, in an async function, so that their stack names who awaits them.
 */
class Store {
  #backend
  /** Queries under way: `close` lets them take all their pages. */
  #queries = 0
  #whenTaken
  #allTaken

  constructor(backend) {
    this.#backend = backend
  }

  append(events) {
    // An async function would hold the events until the answer comes: the collector would copy them, and in vain.
    let answer
    try {
      this.#refuseClosed()
      answer = this.#backend.append(encodeEvents(events))
    } catch (error) {
      return Promise.reject(error)
    }
    return appended(answer)
  }

  async query(query = {}, options) {
    this.#refuseClosed()
    const { filters, cursor } = encodeQuery(query)
    const { limit } = takeOptions(options, ['limit'])
    const rows = takePositiveInteger(limit, 'options.limit', Infinity)
    this.#queries++
    try {
      return await this.#takeAll(filters, cursor, rows)
    } finally {
      if (--this.#queries === 0) this.#whenTaken?.()
    }
  }

  async #takeAll(filters, cursor, rows) {
    const request = { after: cursor, before: -1, backwards: false, maxRows: rows, version: true }
    let page = settle(await this.#backend.page(filters, request))
    const { version } = page
    const records = []
    // A long result comes in pages up to the first page's head: the log only grows, so together
    // they are one snapshot, and the event loop gets its turn in between.
    while (!page.complete && page.rows + records.length < rows) {
      const next = this.#backend.page(filters, {
        after: page.last,
        before: page.before,
        backwards: false,
        maxRows: rows - records.length - page.rows,
        version: false
      })
      pushRecords(page, records)
      page = settle(await next)
    }
    pushRecords(page, records)
    return {
      event_records: records,
      last_returned_sequence_number:
        records.length > 0 ? records[records.length - 1].sequence_number : null,
      current_context_version: sequenceNumber(version)
    }
  }

  appendIf(events, query, expectedContextVersion) {
    let answer
    let version
    try {
      this.#refuseClosed()
      const text = encodeEvents(events)
      const { filters } = encodeQuery(query)
      const path = 'expectedContextVersion'
      const expected = encodeSequenceNumber(expectedContextVersion, path, 'InvalidQuery')
      version = expected === -1 ? null : BigInt(expectedContextVersion)
      answer = this.#backend.appendIf(text, filters, expected)
    } catch (error) {
      return Promise.reject(error)
    }
    return appendedOrNot(answer, version)
  }

  read(query, options) {
    let request
    try {
      request = takeReadRequest(query, options)
    } catch (error) {
      // A wrong argument is the iterator's first rejection.
      return new Reading(this.#backend, { error })
    }
    return new Reading(this.#backend, request)
  }

  async headSequenceNumber() {
    this.#refuseClosed()
    return sequenceNumber(settle(await this.#backend.head()))
  }

  async streamAll(handle, options) {
    this.#refuseClosed()
    return await this.#register({
      filters: 'null',
      handle: takeHandler(handle),
      ...takeLiveOptions(options)
    })
  }

  async streamTo(query, handle, options) {
    this.#refuseClosed()
    return await this.#register({
      filters: encodeQuery(query).filters,
      handle: takeHandler(handle),
      ...takeLiveOptions(options)
    })
  }

  async streamAllDurable(stream, handle, options) {
    this.#refuseClosed()
    return await this.#register({
      name: takeStream(stream),
      filters: 'null',
      handle: takeHandler(handle),
      ...takeDurableOptions(options)
    })
  }

  async streamToDurable(stream, query, handle, options) {
    this.#refuseClosed()
    return await this.#register({
      name: takeStream(stream),
      filters: encodeQuery(query).filters,
      handle: takeHandler(handle),
      ...takeDurableOptions(options)
    })
  }

  async #register(request) {
    request.signal?.throwIfAborted()
    const stream = settle(await this.#backend.register(request))
    settle(await stream.registered)
    return new EventStreamSubscription(stream)
  }

  async listDurableStreams() {
    this.#refuseClosed()
    const streams = JSON.parse(settle(await this.#backend.listStreams()))
    return streams.map(({ position, head, ...info }) => ({
      ...info,
      position: BigInt(position),
      head_sequence_number: BigInt(head)
    }))
  }

  async resetDurableStream(stream, after) {
    this.#refuseClosed()
    const name = takeStream(stream)
    const position = encodeSequenceNumber(after ?? 0, 'after', 'InvalidOptions')
    settle(await this.#backend.resetStream(name, position))
  }

  async deleteDurableStream(stream) {
    this.#refuseClosed()
    settle(await this.#backend.deleteStream(takeStream(stream)))
  }

  async close() {
    this.#backend.closed = true
    if (this.#queries > 0) {
      this.#allTaken ??= new Promise((resolve) => {
        this.#whenTaken = resolve
      })
      await this.#allTaken
    }
    settle(await this.#backend.close())
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  #refuseClosed() {
    if (this.#backend.closed) throw new FactstrError('StoreClosed', 'the store is closed')
  }
}

function takeReadRequest(query, options) {
  const { filters, cursor } = encodeQuery(query ?? {})
  const given = takeOptions(options, READ_OPTIONS)
  const after = encodeSequenceNumber(given.after, 'options.after', 'InvalidOptions')
  if (after !== -1 && cursor !== -1) {
    const message = 'options.after: the query has a min_sequence_number already, give only one'
    throw new FactstrError('InvalidOptions', message)
  }
  return {
    filters,
    after: Math.max(after, cursor),
    before: encodeSequenceNumber(given.before, 'options.before', 'InvalidOptions'),
    backwards: takeBoolean(given.backwards, 'options.backwards'),
    limit: takePositiveInteger(given.limit, 'options.limit', Infinity),
    pageSize: takePositiveInteger(given.pageSize, 'options.pageSize', 1000),
    signal: takeSignal(given.signal)
  }
}

async function appended(answer) {
  const { first, last } = settle(await answer)
  return appendResult(first, last)
}

async function appendedOrNot(answer, expected) {
  const { first, last } = settle(await answer)
  if (first !== -1) return { append_result: appendResult(first, last), conflict: null }
  const actual = sequenceNumber(last)
  return {
    append_result: null,
    conflict: { expected_context_version: expected, actual_context_version: actual }
  }
}

function appendResult(first, last) {
  return {
    first_sequence_number: BigInt(first),
    last_sequence_number: BigInt(last),
    committed_count: BigInt(last - first + 1)
  }
}

function sequenceNumber(number) {
  return number === -1 ? null : BigInt(number)
}

// Node.js 20 before 20.4 has no Symbol.asyncDispose; then the method has a name nobody asks for.
module.exports = { Store }
