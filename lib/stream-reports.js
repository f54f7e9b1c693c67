'use strict'

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

function warn(error) {
  if (!(error instanceof Error)) {
    process.emitWarning(`a stream's onError or onProgress threw ${typeof error}`)
    return
  }
  // What Node.js prints below the message: where it comes from.
  if (error.cause instanceof Error) error.detail ??= error.cause.stack
  process.emitWarning(error)
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
