// What the streams' suites share.

import { setTimeout as sleep } from 'node:timers/promises'

import { collect, event } from '../stores.mjs'

/** Waits for a condition; the test's own limit is the limit. */
export async function until(condition) {
  while (!(await condition())) await sleep(1)
}

/**
 * Waits until as many events have come to everyone as are stored: a server may still commit what a process
 * had sent before it was killed.
 *
 * @param calls what each one has been called with, see `recorder`
 * @returns the records, and the calls by then
 */
export async function untilAllToldOf(store, ...calls) {
  let records
  let soFar
  await until(async () => {
    records = await collect(store.read())
    soFar = calls.map((each) => [...each()])
    return soFar.every((each) => each.flat().length === records.length)
  })
  return { records, calls: soFar }
}

/** A promise to be settled from outside. */
export function gate() {
  let open
  const opened = new Promise((resolve) => {
    open = resolve
  })
  return { open, opened }
}

/** Tells at any time whether a promise has settled. */
export function noted(promise) {
  const state = { isOver: false }
  const over = () => {
    state.isOver = true
    return state
  }
  promise.then(over, over)
  return state
}

/** A handler that notes what it gets, as lists of numbers per call. */
export function recorder(then = () => {}) {
  const calls = []
  const handle = (records) => {
    calls.push(records.map(({ sequence_number: number }) => Number(number)))
    return then(records, calls.length)
  }
  return { calls, handle }
}

/** Appends one batch per argument, as large as it says. */
export async function appendBatches(store, ...sizes) {
  for (const size of sizes) {
    await store.append(Array.from({ length: size }, (_, n) => event('n', { n, size })))
  }
}

export const upTo = (count) => Array.from({ length: count }, (_, index) => index + 1)

/** What `promise` rejects with. */
export function failure(promise) {
  return promise.then(
    (value) => {
      throw new Error(`it was expected to reject, and resolved to ${value}`)
    },
    (reason) => reason
  )
}

/** The warnings of this process while a test runs: the test takes what it expects. */
export function warnings() {
  const seen = []
  const note = (warning) => seen.push(warning)
  process.on('warning', note)
  return { seen, stop: () => process.off('warning', note) }
}
