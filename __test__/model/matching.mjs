// The contract's matching at its simplest. Values are what JSON.parse gives.

export function contains(payload, predicate) {
  if (Array.isArray(predicate)) {
    return (
      Array.isArray(payload) &&
      predicate.every((wanted) => payload.some((element) => contains(element, wanted)))
    )
  }
  if (typeof predicate === 'object' && predicate !== null) {
    return (
      typeof payload === 'object' &&
      payload !== null &&
      !Array.isArray(payload) &&
      Object.keys(predicate).every(
        (key) => Object.hasOwn(payload, key) && contains(payload[key], predicate[key])
      )
    )
  }
  return payload === predicate
}

function filterMatches({ event_types: types, payload_predicates: predicates }, event) {
  return (
    (types == null || types.includes(event.event_type)) &&
    (predicates == null || predicates.some((predicate) => contains(event.payload, predicate)))
  )
}

export function matches({ filters }, event) {
  return filters == null || filters.length === 0 || filters.some((f) => filterMatches(f, event))
}
