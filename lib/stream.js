'use strict'

const { Aborted, Failure, FactstrError, messageOf } = require('./error.js')
const { HandlerCall, callingHandler } = require('./handler-call.js')
const { recordAt } = require('./records.js')
const { Progress, reportFailure } = require('./stream-reports.js')
const { nextTurn, turnIsOver } = require('./handler-turns.js')
const { isAborted } = require('./signals.js')

/** What the native side has for a stream. */
const [CALLS, REGISTERED] = [0, 1]
/** Its verdicts on a failed call. */
const VERDICTS = ['skip', 'retry', 'stop']
/** A call that has not settled this long after its stream was unsubscribed is given up: milliseconds. */
const GRACE = 3000

/** The outcome of such a call. */
class GivenUp {
  /** @param settled resolves to the outcome that it has after all */
  constructor(settled) {
    this.settled = settled
  }
}

/**
 * One stream: takes chunks of calls from the native side and makes them. Which batches come, what
 * follows a failure and where the cursor is are decided there.
 */
class Stream {
  /** The handler call that is running. */
  call
  /** Resolves, when the stream is up to date, to nothing or to why it never will be. */
  registered
  /** Resolves to the stream's end. */
  closed
  #native
  #request
  #onHold
  #resolveRegistered
  #resolveClosed
  #isRegistered = false
  #isEnded = false
  /** Whether it keeps the process alive. */
  #isHeld = false
  /** The error of the last failed call, which may turn out to be the end. */
  #error
  #progress
  /** Ends the wait that is going on. */
  #wake = () => {}
  /** Ends the wait for the running call. */
  #giveUp
  #grace

  /** @param onHold is told when the process must not end without this stream, and when it may */
  constructor(native, request, onHold) {
    this.#native = native
    this.#request = request
    this.#onHold = onHold
    if (request.onProgress !== undefined) this.#progress = new Progress(request.onProgress)
    this.registered = new Promise((resolve) => {
      this.#resolveRegistered = resolve
    })
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.hold(true)
  }

  get position() {
    return this.#native.position()
  }

  /** Keeps the process alive while the stream runs, or lets it end. */
  hold(alive) {
    if (this.#isEnded || this.#isHeld === alive) return
    this.#isHeld = alive
    this.#onHold(alive)
  }

  /** Something may have come. */
  wake() {
    this.#wake()
  }

  /** No call starts after this. */
  unsubscribe() {
    this.stop()
    return this.ended()
  }

  stop() {
    if (this.#isEnded) return
    this.#native.unsubscribe()
    // The stream itself keeps the process alive, or doesn't.
    this.#grace ??= setTimeout(() => {
      this.#native.giveUp()
      this.#giveUp?.()
    }, GRACE).unref()
  }

  /** Resolves when the stream has ended; at once, if that would wait for the caller itself. */
  async ended() {
    if (this.#isEnded) return
    const caller = callingHandler()
    if (caller?.holdsUp(this)) return
    const forget = caller?.waitFor(this)
    await this.closed
    forget?.()
  }

  /** Runs to the end of the stream. Never rejects. */
  async run() {
    let end
    try {
      end = await this.#run()
    } catch (error) {
      this.#native.giveUp()
      await this.#waitFor(() => this.#native.hasEnded())
      end = { reason: 'backend-failed', code: 'BackendFailure', message: messageOf(error) }
    }
    this.#end(end)
  }

  /** Waits for something that a wake-up comes with. */
  async #waitFor(condition) {
    while (!condition()) {
      await new Promise((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** The handler is called in the context of the registration, where this function was called. */
  async #run() {
    // No handler is called before the registering call has returned.
    await null
    for (;;) {
      const text = this.#native.take()
      if (text === null) {
        await new Promise((resolve) => {
          this.#wake = resolve
        })
        continue
      }
      const [kind, ...rest] = parse(text)
      if (kind === CALLS) {
        await this.#makeCalls(text, rest)
      } else if (kind === REGISTERED) {
        const [head, position] = rest
        // A registration that is aborted rejects, even if it could have been completed: the end follows.
        if (isAborted(this.#request.signal)) continue
        this.#isRegistered = true
        this.#progress?.moved(position, head)
        this.#progress?.tell()
        this.#resolveRegistered(undefined)
      } else {
        const [reason, code, message] = rest
        return { reason, code, message }
      }
    }
  }

  async #makeCalls(text, [head, values, calls]) {
    let row = 0
    for (let at = 0; at < calls.length; at += 2) {
      const [rows, position] = [calls[at], calls[at + 1]]
      let records = recordsOf(values, row, rows)
      for (let attempt = 1; ; attempt++) {
        if (turnIsOver()) await nextTurn(this.#isHeld)
        if (!this.#native.enter()) return
        const outcome = this.#call(records)
        const error = outcome instanceof Promise ? await outcome : outcome
        if (error === undefined) {
          this.#native.processed(position)
          break
        }
        // The handler may have changed what it was given.
        const anew = () => recordsOf(JSON.parse(text)[2], row, rows)
        if (error instanceof GivenUp) {
          this.#leave(error.settled, position, attempt, anew)
          return
        }
        const { next, delay } = this.#fail(error, position, attempt, anew)
        if (next === 'skip') break
        if (next === 'stop') return
        await this.#pause(delay)
        records = anew()
      }
      row += rows
      this.#progress?.moved(position, head)
    }
  }

  /** @returns the error if the call has failed, or a promise of that */
  #call(records) {
    const call = new HandlerCall()
    this.call = call
    let result
    try {
      result = call.run(this.#request.handle, records)
      if (isThenable(result)) return this.#settled(call, result)
    } catch (error) {
      return this.#over(call, handlerFailed(error))
    }
    return this.#over(call, result === false ? returnedFalse() : undefined)
  }

  #settled(call, result) {
    return new Promise((resolve) => {
      let tell = resolve
      this.#giveUp = () => {
        const settled = new Promise((late) => {
          tell = late
        })
        resolve(new GivenUp(settled))
      }
      Promise.resolve(result).then(
        (value) => tell(this.#over(call, value === false ? returnedFalse() : undefined)),
        (error) => tell(this.#over(call, handlerFailed(error)))
      )
    })
  }

  /** Tells that a call was given up, and minds how it ends after all. */
  async #leave(settled, position, attempt, anew) {
    const { name, onError } = this.#request
    const report = (error) => {
      const event_records = onError === undefined ? [] : anew()
      reportFailure(error, { event_records, attempt, next: 'stop', retry_delay_ms: null }, onError)
    }
    this.call = undefined
    report(givenUp(name))
    const error = await settled
    if (error === undefined) this.#native.processedLate(position)
    else report(error)
  }

  #over(call, outcome) {
    call.end()
    if (this.call === call) this.call = undefined
    return outcome
  }

  #fail(error, position, attempt, anew) {
    this.#error = error
    const { verdict, delay } = this.#native.failed(position, error.message)
    const next = VERDICTS[verdict]
    const { onError } = this.#request
    // A failure that rejects the registration needs no warning.
    if (onError !== undefined || next !== 'stop' || this.#isRegistered) {
      const failure = {
        event_records: onError === undefined ? [] : anew(),
        attempt,
        next,
        retry_delay_ms: next === 'retry' ? delay : null
      }
      reportFailure(error, failure, onError)
    }
    return { next, delay }
  }

  /** Waits, at most until the stream has ended. */
  async #pause(delay) {
    let timer
    await new Promise((resolve) => {
      this.#wake = () => {
        if (this.#native.hasEnded()) resolve()
      }
      // The stream itself keeps the process alive, or doesn't.
      timer = setTimeout(resolve, delay).unref()
    })
    clearTimeout(timer)
  }

  #end({ reason, code, message }) {
    const { onError } = this.#request
    this.hold(false)
    this.#isEnded = true
    clearTimeout(this.#grace)
    this.#progress?.end()
    let error
    if (reason === 'handler-failed') error = this.#error
    if (reason === 'backend-failed') error = new FactstrError(code, message)
    if (!this.#isRegistered) {
      this.#resolveRegistered(this.#refusal(reason, code, message))
    } else if (reason === 'backend-failed') {
      const failure = { event_records: [], attempt: 0, next: 'stop', retry_delay_ms: null }
      reportFailure(error, failure, onError)
    }
    this.#resolveClosed(error === undefined ? { reason } : { reason, error })
  }

  #refusal(reason, code, message) {
    if (reason === 'handler-failed') {
      return new Failure(this.#error.code, this.#error.message, { cause: this.#error.cause })
    }
    if (reason === 'store-closed') return new Failure('StoreClosed', 'the store is closed')
    if (reason === 'unsubscribed') return new Aborted(this.#request.signal)
    return new Failure(code, message)
  }
}

/** A damaged payload may be no JSON value, or several. */
function parse(text) {
  let parsed
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    throw new Error(`a stored payload is damaged: ${error.message}`, { cause: error })
  }
  const [kind, , values, calls] = parsed
  if (kind !== CALLS) return parsed
  let rows = 0
  for (let at = 0; at < calls?.length; at += 2) rows += calls[at]
  if (parsed.length === 4 && values.length === rows + 1) return parsed
  throw new Error('a stored payload is damaged: it is no JSON value')
}

function recordsOf(values, row, rows) {
  const records = []
  for (let at = row; at < row + rows; at++) records.push(recordAt(values, values.length - 1, at))
  return records
}

function isThenable(value) {
  if (value === undefined || value === null) return false
  if (typeof value !== 'object' && typeof value !== 'function') return false
  return typeof value.then === 'function'
}

function returnedFalse() {
  return handlerFailed(new Error('the handler returned false'))
}

function givenUp(name) {
  const which = name === undefined ? 'a live stream' : `the durable stream '${name}'`
  const repeats = name === undefined ? '' : ', and its batch may be repeated'
  const message =
    `a handler call of ${which} has not settled ${GRACE / 1000} seconds after the stream was ` +
    `unsubscribed, which has ended without it: the call is still running${repeats}`
  return new FactstrError('StreamHandlerFailed', message)
}

/** Never throws, whatever the handler did: who calls it has nobody to tell. */
function handlerFailed(cause) {
  const message = `a stream's handler failed: ${messageOf(cause)}`
  return new FactstrError('StreamHandlerFailed', message, { cause })
}

module.exports = { Stream }
