'use strict'

// What reaches the native side is JSON text and numbers. Here is refused only what that text could
// not show: values that `JSON.stringify` drops or can't write. The rest is checked natively.

const { FactstrError, isFactstrError, messageOf } = require('./error.js')

/** Deeper than any limit of the native side; also what ends the walk through a cycle. */
const DEEPEST = 200
const LARGEST_INTEGER = 2 ** 31 - 1

function encodeEvents(events) {
  try {
    if (!Array.isArray(events)) {
      throw new FactstrError('InvalidEvent', 'events: must be an array of events')
    }
    for (let i = 0; i < events.length; i++) refuseUnknownMember(events[i], i)
    const text = JSON.stringify(events)
    if (typeof text === 'string') return text
  } catch (cause) {
    if (cause instanceof FactstrError) throw cause
    const culprit = findUnwritable(events) ?? `events: ${messageOf(cause)}`
    throw new FactstrError('InvalidEvent', culprit, { cause })
  }
  throw new FactstrError('InvalidEvent', 'events: has a toJSON that gives no JSON value')
}

/** `JSON.stringify` drops members that are functions or symbols, so the native side can't refuse them. */
function refuseUnknownMember(event, index) {
  if (typeof event !== 'object' || event === null || Array.isArray(event)) return
  // What `toJSON` gives is seen by the native side.
  if (typeof event.toJSON === 'function') return
  for (const key of Object.keys(event)) {
    if (key !== 'event_type' && key !== 'payload') {
      const known = 'an event has event_type and payload'
      const path = member(`events[${index}]`, key, event)
      throw new FactstrError('InvalidEvent', `${path}: unknown member, it would be lost (${known})`)
    }
  }
}

/** Finds what made `JSON.stringify` throw: `path: reason`. */
function findUnwritable(events) {
  try {
    return findIn(events, 'events', [])
  } catch {
    return undefined
  }
}

function findIn(value, path, above) {
  if (typeof value === 'bigint') return `${path}: a BigInt is no JSON value`
  if (typeof value !== 'object' || value === null) return undefined
  if (above.includes(value)) return `${path}: a cycle is no JSON value`
  if (above.length > DEEPEST) return `${path}: nested more than 100 levels deep`
  above.push(value)
  try {
    for (const key of Object.keys(value)) {
      const found = findIn(value[key], member(path, key, value), above)
      if (found !== undefined) return found
    }
  } catch (error) {
    return `${path}: ${messageOf(error)}`
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
  try {
    refuseUnknownQueryMember(query, 'query', 'filters', 'min_sequence_number', 'a query')
    const cursor = query.min_sequence_number
    return {
      filters: encodeFilters(query.filters),
      cursor: encodeSequenceNumber(cursor, 'query.min_sequence_number', 'InvalidQuery')
    }
  } catch (cause) {
    if (cause instanceof FactstrError) throw cause
    throw new FactstrError('InvalidQuery', `query: ${messageOf(cause)}`, { cause })
  }
}

/** A member that is not known might be a typo, and the context wider than it was meant. */
function refuseUnknownQueryMember(value, path, one, other, what) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FactstrError('InvalidQuery', `${path}: must be an object`)
  }
  for (const key of Object.keys(value)) {
    if (key !== one && key !== other) {
      const known = `${what} has ${one} and ${other}`
      throw new FactstrError('InvalidQuery', `${member(path, key)}: unknown member (${known})`)
    }
  }
}

function encodeFilters(filters) {
  if (filters === undefined || filters === null) return 'null'
  const plain = takeList(filters, 'query.filters', takeFilter)
  try {
    return JSON.stringify(plain)
  } catch (cause) {
    throw new FactstrError('InvalidQuery', `query.filters: ${messageOf(cause)}`, { cause })
  }
}

// What is checked is what is written: each value is read once, into a plain copy, because a getter
// could answer differently and `toJSON` could leave something out. A context must never become wider
// than it was written.

function takeList(list, path, takeElement) {
  if (!Array.isArray(list)) {
    throw new FactstrError('InvalidQuery', `${path}: must be an array, null or absent`)
  }
  const plain = []
  for (let i = 0; i < list.length; i++) plain.push(takeElement(list[i], `${path}[${i}]`))
  return plain
}

function takeFilter(filter, path) {
  refuseUnknownQueryMember(filter, path, 'event_types', 'payload_predicates', 'a filter')
  const { event_types: types, payload_predicates: predicates } = filter
  const plain = {}
  if (types !== undefined && types !== null) {
    plain.event_types = takeList(types, `${path}.event_types`, takeValue)
  }
  if (predicates !== undefined && predicates !== null) {
    plain.payload_predicates = takeList(predicates, `${path}.payload_predicates`, takeValue)
  }
  return plain
}

function takeValue(value, path, level = 0) {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
    return value
  }
  // What is raw can't be changed any more, and is no object to JSON.stringify.
  if (value === null || JSON.isRawJSON?.(value)) return value
  if (typeof value !== 'object') {
    throw new FactstrError('InvalidQuery', `${path}: ${typeof value} is no JSON value`)
  }
  if (level > DEEPEST) {
    throw new FactstrError('InvalidQuery', `${path}: nested more than 100 levels deep, or a cycle`)
  }
  if (typeof value.toJSON === 'function') return takeValue(toJson(value, path), path, level + 1)
  if (Array.isArray(value)) {
    const plain = []
    for (let i = 0; i < value.length; i++) {
      plain.push(takeValue(value[i], `${path}[${i}]`, level + 1))
    }
    return plain
  }
  if (value instanceof String || value instanceof Number || value instanceof Boolean) {
    return value.valueOf()
  }
  const keys = Object.keys(value)
  if (keys.length === 0 && !isPlain(value)) {
    const message = `${path}: a ${value.constructor?.name} would be the predicate {}`
    throw new FactstrError('InvalidQuery', message)
  }
  const plain = {}
  for (const key of keys) {
    const taken = takeValue(value[key], member(path, key), level + 1)
    if (key === '__proto__') Object.defineProperty(plain, key, { value: taken, enumerable: true })
    else plain[key] = taken
  }
  return plain
}

function toJson(value, path) {
  try {
    return value.toJSON()
  } catch (cause) {
    throw new FactstrError('InvalidQuery', `${path}: ${messageOf(cause)}`, { cause })
  }
}

function isPlain(value) {
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
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

/** Refuses options that don't exist, and gives a copy of the others, which is read once. */
function takeOptions(options, known) {
  if (options === undefined || options === null) return {}
  return taking('options', () => takeMembers(options, 'options', known, 'option'))
}

/** Refuses what is no object or has other members than these, and gives a copy. */
function takeMembers(object, path, known, kind) {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) {
    throw new FactstrError('InvalidOptions', `${path}: must be an object`)
  }
  refuseUnknown(object, path, known, kind)
  const taken = {}
  for (const key of known) taken[key] = object[key]
  return taken
}

/** What an argument throws while it is read, by a getter or a proxy, is a fault of the argument. */
function taking(path, take) {
  try {
    return take()
  } catch (cause) {
    if (isFactstrError(cause)) throw cause
    throw new FactstrError('InvalidOptions', `${path}: ${messageOf(cause)}`, { cause })
  }
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

/** An integer from `least` up to what a timer of the platform takes: as milliseconds 24 days. */
function takeInteger(value, path, least, fallback) {
  if (value === undefined || value === null) return fallback
  if (Number.isInteger(value) && value >= least && value <= LARGEST_INTEGER) return value
  const range = `an integer from ${least} to ${LARGEST_INTEGER}`
  throw new FactstrError('InvalidOptions', `${path}: must be ${range}`)
}

/** A string that reaches the native side as it is. */
function takeString(value, path) {
  if (typeof value !== 'string')
    throw new FactstrError('InvalidOptions', `${path}: must be a string`)
  if (value.isWellFormed()) return value
  throw new FactstrError('InvalidOptions', `${path}: contains a lone surrogate`)
}

function takeBoolean(value, path) {
  if (value === undefined || value === null) return false
  if (typeof value === 'boolean') return value
  throw new FactstrError('InvalidOptions', `${path}: must be true or false`)
}

/** A signal of another realm, or one that a library made, does as well. */
function takeSignal(signal) {
  if (signal === undefined || signal === null) return undefined
  const methods = ['throwIfAborted', 'addEventListener', 'removeEventListener']
  const isSignal = taking(
    'options.signal',
    () =>
      typeof signal === 'object' &&
      typeof signal.aborted === 'boolean' &&
      methods.every((method) => typeof signal[method] === 'function')
  )
  if (isSignal) return signal
  throw new FactstrError('InvalidOptions', 'options.signal: must be an AbortSignal')
}

module.exports = {
  encodeEvents,
  encodeQuery,
  encodeSequenceNumber,
  takeBoolean,
  takeInteger,
  takeMembers,
  takeOptions,
  takePositiveInteger,
  takeSignal,
  takeString,
  taking
}
