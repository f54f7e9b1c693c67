'use strict'

/**
 * What is to be called when a signal aborts. A signal has one listener, however many wait for it: a
 * platform warns of more than a few.
 */
const waiting = new WeakMap()

/** Calls `stop` when the signal aborts, unless it has. Throws what the signal throws. */
function onAbort(signal, stop) {
  let waits = waiting.get(signal)
  if (waits === undefined) {
    const stops = new Set()
    const listener = () => {
      waiting.delete(signal)
      for (const each of stops) each()
    }
    signal.addEventListener('abort', listener, { once: true })
    waits = { stops, listener }
    waiting.set(signal, waits)
  }
  waits.stops.add(stop)
}

/** Takes it back. */
function offAbort(signal, stop) {
  const waits = waiting.get(signal)
  if (waits === undefined) return
  waits.stops.delete(stop)
  if (waits.stops.size > 0) return
  waiting.delete(signal)
  try {
    signal.removeEventListener('abort', waits.listener)
  } catch {
    // Then it calls a listener that has nobody to tell.
  }
}

function isAborted(signal) {
  try {
    return signal?.aborted === true
  } catch {
    return false
  }
}

module.exports = { isAborted, offAbort, onAbort }
