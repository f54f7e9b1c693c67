// The work that an application does all day: read a context, decide, append if nothing has changed.

import { event } from './events.mjs'

export const contextOf = (item) => ({ filters: [{ payload_predicates: [{ item_id: item }] }] })

/** The fact that follows from `facts`: of a new item, so that contexts keep their about 10 events. */
export function decision(facts, n, items) {
  const next = event(n, items)
  next.payload.item_id = `made-${n}`
  next.payload.amount = facts.length
  return next
}

/** Reads a context, decides, appends; `true` when it was committed. */
export async function decide(store, item, n, items) {
  const context = contextOf(item)
  const { event_records: facts, current_context_version: version } = await store.query(context)
  return (await store.appendIf([decision(facts, n, items)], context, version)).conflict === null
}

/** Every step the number of another item, far from the one before. */
export function wanderingNumbers(items, start = 0) {
  let at = start % items
  return () => (at = (at + 7919) % items)
}

export function wandering(items, start) {
  const next = wanderingNumbers(items, start)
  return () => `item-${next()}`
}
