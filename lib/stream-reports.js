'use strict'

const { isFactstrError, messageOf } = require('./error.js')

/** The least time between two reports of progress, in milliseconds. */
const INTERVAL = 100

/** Tells the application of a failure, by a process warning if it gave no function for that. */
function reportFailure(error, failure, onError) {
  if (onError === undefined) warn(error)
  else callSafely(() => onError(error, failure))
}

/** Calls a function of the application whose own failure must not end a stream. */
async function callSafely(call) {
  try {
    await call()
  } catch (error) {
    warn(error)
  }
}

/** Never throws, and leaves an error of the application as it is: it may be anything. */
function warn(error) {
  const isOurs = isFactstrError(error) && !Object.isFrozen(error)
  const warning = isOurs ? error : new Error(messageOf(error))
  // What Node.js prints below the message: where it comes from.
  const detail = stackOf(isOurs ? error.cause : error)
  if (detail !== undefined) warning.detail ??= detail
  process.emitWarning(warning)
}

function stackOf(error) {
  try {
    return typeof error?.stack === 'string' ? error.stack : undefined
  } catch {
    return undefined
  }
}

/** Tells how far a stream has come: at once, and then not more often than the interval. */
class Progress {
  #onProgress
  #position = 0
  #head = 0
  #isTold = true
  #timer

  constructor(onProgress) {
    this.#onProgress = onProgress
  }

  moved(position, head) {
    this.#position = position
    this.#head = Math.max(position, head)
    this.#isTold = false
    if (this.#timer === undefined) this.tell()
  }

  tell() {
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#isTold) return
    this.#isTold = true
    this.#timer = setTimeout(() => this.tell(), INTERVAL).unref()
    const progress = {
      position: BigInt(this.#position),
      head_sequence_number: BigInt(this.#head)
    }
    callSafely(() => this.#onProgress(progress))
  }

  end() {
    clearTimeout(this.#timer)
    this.#isTold = true
  }
}

module.exports = { Progress, reportFailure }
