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
  constructor(code, message) {
    this.code = code
    this.message = message
  }
}

/** Passes an answer through, and throws a failure. */
function settle(answer) {
  if (answer instanceof Failure) throw new FactstrError(answer.code, answer.message)
  return answer
}

module.exports = { Failure, FactstrError, settle }
