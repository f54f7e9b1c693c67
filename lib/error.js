'use strict'

class FactstrError extends Error {
  constructor(code, message, options) {
    super(message, options)
    this.code = code
  }
}
Object.defineProperty(FactstrError.prototype, 'name', {
  value: 'FactstrError',
  writable: true,
  configurable: true
})

/** A store's negative answer. It becomes an error only where the caller's stack is at hand. */
class Failure {
  /** @param options an error's options, if it has a cause */
  constructor(code, message, options) {
    this.code = code
    this.message = message
    this.options = options
  }
}

/** The answer to what a signal has ended: becomes the signal's reason. */
class Aborted {
  constructor(signal) {
    this.signal = signal
  }
}

/** Passes an answer through, and throws a failure. */
function settle(answer) {
  if (answer instanceof Failure) {
    throw new FactstrError(answer.code, answer.message, answer.options)
  }
  if (answer instanceof Aborted) throw answer.signal.reason
  return answer
}

/** Tells one of ours from whatever was thrown. Never throws. */
function isFactstrError(error) {
  try {
    return error instanceof FactstrError
  } catch {
    return false
  }
}

/** The words of whatever was thrown. Never throws. */
function messageOf(error) {
  try {
    return String(error?.message ?? error)
  } catch {
    return 'it threw a value without a message'
  }
}

module.exports = { Aborted, Failure, FactstrError, isFactstrError, messageOf, settle }
