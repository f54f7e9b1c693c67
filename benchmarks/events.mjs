// Events of about 200 bytes of JSON: 20 types, a nested object, an array, ids.

export const TYPES = Array.from({ length: 20 }, (_, n) => `equipment-${String(n).padStart(2, '0')}`)

/** Event `n` of a store in which each of `items` has its share. */
export function event(n, items) {
  const item = n % items
  return {
    event_type: TYPES[(n * 7) % TYPES.length],
    payload: {
      item_id: `item-${item}`,
      order_id: `order-${n}`,
      // Two fields that match 100 and 100,000 of 1,000,000 events.
      batch_id: Math.floor(n / 100),
      decade: n % 10,
      person: { id: `person-${n % 997}`, city: 'Utrecht', verified: n % 2 === 0 },
      labels: ['field', `shelf-${n % 31}`],
      amount: (n % 1000) / 4
    }
  }
}

export function* batches(count, items, size = 100) {
  for (let at = 0; at < count; at += size) {
    yield Array.from({ length: Math.min(size, count - at) }, (_, index) => event(at + index, items))
  }
}

/** About 10 events per item at every size. */
export const itemsOf = (size) => Math.max(1, Math.floor(size / 10))

/**
 * Events of a store that grows from size to size. Each part has items of its own, ten events each and far
 * apart, so that a context has ten events at every size. All events of an item have one type.
 */
export function growing({ from, to }) {
  const items = (to - from) / 10
  return (n) => {
    const fact = event(n, items)
    fact.payload.item_id = `item-${from / 10 + ((n - from) % items)}`
    return fact
  }
}

/** Event `n` of an item of its own, so that no context grows. */
export function unrelated(n) {
  const fact = event(n, 1000)
  fact.payload.item_id = `made-${n}`
  return fact
}
