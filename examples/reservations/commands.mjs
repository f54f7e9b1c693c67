// The commands: read the facts of one item, decide, append if they are still the same.

/** What matters to a decision about one item, and nothing else. */
function contextOf(item) {
  return {
    filters: [
      {
        event_types: ['item-reserved', 'item-returned'],
        payload_predicates: [{ item_id: item }]
      }
    ]
  }
}

/** Appends what `decide` makes of the item's holder, and says what became of it. */
async function change(store, item, decide) {
  const context = contextOf(item)
  for (;;) {
    const { event_records: facts, current_context_version: version } = await store.query(context)
    const last = facts.at(-1)
    const holder = last?.event_type === 'item-reserved' ? last.payload.person : undefined
    const { fact, refusal } = decide(holder)
    if (refusal !== undefined) return { refusal }
    const { append_result: appended, conflict } = await store.appendIf([fact], context, version)
    if (conflict === null) return { number: Number(appended.first_sequence_number) }
    // Somebody was faster: decide again on what is there now.
  }
}

export function reserve(store, item, person) {
  return change(store, item, (holder) =>
    holder === undefined
      ? { fact: { event_type: 'item-reserved', payload: { item_id: item, person } } }
      : { refusal: `${item} is with ${holder}` }
  )
}

export function giveBack(store, item) {
  return change(store, item, (holder) =>
    holder === undefined
      ? { refusal: `${item} is not lent out` }
      : { fact: { event_type: 'item-returned', payload: { item_id: item, person: holder } } }
  )
}
