'use strict'

const {
  takeMembers,
  takeOptions,
  takePositiveInteger,
  takeSignal,
  taking
} = require('./arguments.js')
const { FactstrError } = require('./error.js')

const LIVE_OPTIONS = ['signal', 'onError']
const DURABLE_OPTIONS = [...LIVE_OPTIONS, 'retry', 'ifActive', 'maxEventsPerCall', 'onProgress']
const RETRY_OPTIONS = ['attempts', 'initialDelayMs', 'maxDelayMs']
/** Beyond this a timer of the platform would overflow: 24 days. */
const LONGEST_WAIT = 2 ** 31 - 1
const LONGEST_NAME = 255

function takeHandler(handle) {
  if (typeof handle === 'function') return handle
  throw new FactstrError('InvalidOptions', 'handle: must be a function')
}

/** The name of a durable stream. */
function takeStream(stream) {
  const { name } = taking('stream', () => takeMembers(stream, 'stream', ['name'], 'member'))
  if (typeof name !== 'string') {
    throw new FactstrError('InvalidOptions', 'stream.name: must be a string')
  }
  const bytes = Buffer.byteLength(name)
  if (bytes === 0 || bytes > LONGEST_NAME) {
    const message = `stream.name: has ${bytes} bytes, it must have 1 to ${LONGEST_NAME}`
    throw new FactstrError('InvalidOptions', message)
  }
  if (name.includes('\0') || !name.isWellFormed()) {
    const message = 'stream.name: must not contain U+0000 or a lone surrogate'
    throw new FactstrError('InvalidOptions', message)
  }
  return name
}

function takeLiveOptions(options) {
  const given = takeOptions(options, LIVE_OPTIONS)
  return {
    signal: takeSignal(given.signal),
    onError: takeFunction(given.onError, 'options.onError')
  }
}

function takeDurableOptions(options) {
  const given = takeOptions(options, DURABLE_OPTIONS)
  const ifActive = given.ifActive ?? 'reject'
  if (ifActive !== 'reject' && ifActive !== 'wait') {
    throw new FactstrError('InvalidOptions', "options.ifActive: must be 'reject' or 'wait'")
  }
  return {
    signal: takeSignal(given.signal),
    onError: takeFunction(given.onError, 'options.onError'),
    onProgress: takeFunction(given.onProgress, 'options.onProgress'),
    retry: takeRetry(given.retry),
    wait: ifActive === 'wait',
    maxEventsPerCall: takePositiveInteger(given.maxEventsPerCall, 'options.maxEventsPerCall', 0)
  }
}

/** Numbers for the native side; -1 stands for its defaults. */
function takeRetry(retry) {
  if (retry === undefined || retry === null) {
    return { attempts: -1, initialDelayMs: -1, maxDelayMs: -1 }
  }
  const path = 'options.retry'
  const { attempts, initialDelayMs, maxDelayMs } = taking(path, () =>
    takeMembers(retry, path, RETRY_OPTIONS, 'option')
  )
  return {
    attempts: takeAttempts(attempts),
    initialDelayMs: takeDelay(initialDelayMs, `${path}.initialDelayMs`),
    maxDelayMs: takeDelay(maxDelayMs, `${path}.maxDelayMs`)
  }
}

function takeAttempts(value) {
  if (value === undefined || value === null) return -1
  if (value === Infinity || (Number.isSafeInteger(value) && value > 0)) return value
  const message = 'options.retry.attempts: must be a positive integer or Infinity'
  throw new FactstrError('InvalidOptions', message)
}

function takeDelay(value, path) {
  if (value === undefined || value === null) return -1
  if (typeof value === 'number' && value >= 0 && value <= LONGEST_WAIT) return value
  throw new FactstrError('InvalidOptions', `${path}: must be a number from 0 to ${LONGEST_WAIT}`)
}

function takeFunction(value, path) {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'function') return value
  throw new FactstrError('InvalidOptions', `${path}: must be a function`)
}

module.exports = { takeDurableOptions, takeHandler, takeLiveOptions, takeStream }
