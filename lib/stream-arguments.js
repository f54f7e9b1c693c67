'use strict'

const { takeOptions, takePositiveInteger, takeSignal, refuseUnknown } = require('./arguments.js')
const { FactstrError } = require('./error.js')

const LIVE_OPTIONS = ['signal', 'onError']
const DURABLE_OPTIONS = [...LIVE_OPTIONS, 'retry', 'ifActive', 'maxEventsPerCall', 'onProgress']
/** Beyond this a timer of the platform would overflow: 24 days. */
const LONGEST_WAIT = 2 ** 31 - 1
const LONGEST_NAME = 255

function takeHandler(handle) {
  if (typeof handle === 'function') return handle
  throw new FactstrError('InvalidOptions', 'handle: must be a function')
}

/** The name of a durable stream. */
function takeStream(stream) {
  if (typeof stream !== 'object' || stream === null || Array.isArray(stream)) {
    throw new FactstrError('InvalidOptions', 'stream: must be an object with a name')
  }
  refuseUnknown(stream, 'stream', ['name'], 'member')
  const { name } = stream
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
  if (typeof retry !== 'object' || Array.isArray(retry)) {
    throw new FactstrError('InvalidOptions', 'options.retry: must be an object')
  }
  refuseUnknown(retry, 'options.retry', ['attempts', 'initialDelayMs', 'maxDelayMs'], 'option')
  return {
    attempts: takeAttempts(retry.attempts),
    initialDelayMs: takeDelay(retry.initialDelayMs, 'options.retry.initialDelayMs'),
    maxDelayMs: takeDelay(retry.maxDelayMs, 'options.retry.maxDelayMs')
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
