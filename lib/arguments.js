'use strict'

// What reaches the native side is JSON text and numbers. Here is refused only what that text could
// not show: values that `JSON.stringify` drops or can't write. The rest is checked natively.

const { FactstrError } = require('./error.js')

/** Deeper than any limit of the native side; also what ends the walk through a cycle. */
const DEEPEST = 200

function encodeEvents(events) {
  if (!Array.isArray(events)) {
    throw new FactstrError('InvalidEvent', 'events: must be an array of events')
  }
  try {
    return JSON.stringify(events)
  } catch (cause) {
    const culprit = findUnwritable(events, 'events', []) ?? `events: ${cause?.message ?? cause}`
    throw new FactstrError('InvalidEvent', culprit, { cause })
  }
}

/** Finds what made `JSON.stringify` throw: `path: reason`. */
function findUnwritable(value, path, above) {
  if (typeof value === 'bigint') return `${path}: a BigInt is no JSON value`
  if (typeof value !== 'object' || value === null) return undefined
  if (above.includes(value)) return `${path}: a cycle is no JSON value`
  if (above.length > DEEPEST) return `${path}: nested more than 100 levels deep`
  above.push(value)
  try {
    for (const key of Object.keys(value)) {
      const found = findUnwritable(value[key], member(path, key, value), above)
      if (found !== undefined) return found
    }
  } catch (error) {
    return `${path}: ${error?.message ?? error}`
  }
  above.pop()
  return undefined
}

function member(path, key, owner) {
  if (Array.isArray(owner)) return `${path}[${key}]`
  return /^[\w$]+$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`
}

/** Takes a query apart: its filters as JSON text, its cursor as a number (-1: none). */
function encodeQuery(query) {
  if (typeof query !== 'object' || query === null || Array.isArray(query)) {
    throw new FactstrError('InvalidQuery', 'query: must be an object')
  }
  for (const key of Object.keys(query)) {
    if (key !== 'filters' && key !== 'min_sequence_number') {
      const known = 'a query has filters and min_sequence_number'
      throw new FactstrError('InvalidQuery', `${member('query', key)}: unknown member (${known})`)
    }
  }
  const cursor = query.min_sequence_number
  return {
    filters: encodeFilters(query.filters),
    cursor: encodeSequenceNumber(cursor, 'query.min_sequence_number', 'InvalidQuery')
  }
}

function encodeFilters(filters) {
  if (filters === undefined || filters === null) return 'null'
  try {
    if (Array.isArray(filters)) {
      for (let i = 0; i < filters.length; i++) refuseLoss(filters[i], `query.filters[${i}]`, 1)
    }
    const text = JSON.stringify(filters)
    if (typeof text === 'string') return text
  } catch (error) {
    if (error instanceof FactstrError) throw error
    const message = `query.filters: ${error?.message ?? error}`
    throw new FactstrError('InvalidQuery', message, { cause: error })
  }
  throw new FactstrError('InvalidQuery', 'query.filters: must be an array, null or absent')
}

/** Refuses what JSON text would leave out: a context must never become wider than it was written. */
function refuseLoss(value, path, level) {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return
  if (value === null) return
  if (typeof value !== 'object') {
    throw new FactstrError('InvalidQuery', `${path}: ${typeof value} is no JSON value`)
  }
  if (level > DEEPEST) {
    throw new FactstrError('InvalidQuery', `${path}: nested more than 100 levels deep, or a cycle`)
  }
  if (typeof value.toJSON === 'function') {
    refuseLoss(value.toJSON(), path, level + 1)
    return
  }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) refuseLoss(value[i], `${path}[${i}]`, level + 1)
    return
  }
  const keys = Object.keys(value)
  if (keys.length === 0 && !isPlain(value)) {
    const message = `${path}: a ${value.constructor?.name} would be the predicate {}`
    throw new FactstrError('InvalidQuery', message)
  }
  for (const key of keys) {
    // The members of a filter itself may be absent.
    if (level === 1 && value[key] === undefined) continue
    refuseLoss(value[key], member(path, key), level + 1)
  }
}

function isPlain(value) {
  const prototype = Object.getPrototypeOf(value)
  if (prototype === null || Object.getPrototypeOf(prototype) === null) return true
  return value instanceof String || value instanceof Number || value instanceof Boolean
}

/** A sequence number as a double, -1 for none. Numbers beyond every sequence number are one. */
function encodeSequenceNumber(value, path, code) {
  if (value === undefined || value === null) return -1
  if (typeof value === 'bigint' && value >= 0n) {
    return value > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : Number(value)
  }
  if (Number.isSafeInteger(value) && value >= 0) return value
  const expected = 'a non-negative bigint, a safe non-negative integer, null or absent'
  throw new FactstrError(code, `${path}: must be ${expected}`)
}

/** Refuses options that don't exist, and gives an object in any case. */
function takeOptions(options, known) {
  if (options === undefined || options === null) return {}
  if (typeof options !== 'object' || Array.isArray(options)) {
    throw new FactstrError('InvalidOptions', 'options: must be an object')
  }
  refuseUnknown(options, 'options', known, 'option')
  return options
}

/** @param kind what a member is called in the message */
function refuseUnknown(object, path, known, kind) {
  for (const key of Object.keys(object)) {
    if (!known.includes(key)) {
      const message = `${member(path, key)}: unknown ${kind} (there is ${known.join(', ')})`
      throw new FactstrError('InvalidOptions', message)
    }
  }
}

function takePositiveInteger(value, path, fallback) {
  if (value === undefined || value === null) return fallback
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new FactstrError('InvalidOptions', `${path}: must be a positive integer`)
}

function takeBoolean(value, path) {
  if (value === undefined || value === null) return false
  if (typeof value === 'boolean') return value
  throw new FactstrError('InvalidOptions', `${path}: must be true or false`)
}

function takeSignal(signal) {
  if (signal === undefined || signal === null) return undefined
  if (signal instanceof AbortSignal) return signal
  throw new FactstrError('InvalidOptions', 'options.signal: must be an AbortSignal')
}

module.exports = {
  encodeEvents,
  encodeQuery,
  encodeSequenceNumber,
  refuseUnknown,
  takeBoolean,
  takeOptions,
  takePositiveInteger,
  takeSignal
}
