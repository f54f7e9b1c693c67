// Increments a counter until it is killed or has done so often enough: place, counter, how often. Tells
// each value that was acknowledged.

import { openAt } from './place.mjs'

const [place, counter, times] = process.argv.slice(2)
const store = await openAt(place)
const context = { filters: [{ event_types: ['incremented'], payload_predicates: [{ counter }] }] }
let value = 0
let cursor

for (let done = 0; done < Number(times);) {
  const { event_records: facts, current_context_version: version } = await store.query({
    ...context,
    min_sequence_number: cursor
  })
  value = facts.at(-1)?.payload.value ?? value
  cursor = version ?? undefined
  const fact = { event_type: 'incremented', payload: { counter, value: value + 1 } }
  const { append_result: result } = await store.appendIf([fact], context, version)
  if (result === null) continue
  done++
  process.send({ counter, value: value + 1, number: Number(result.last_sequence_number) })
}
await store.close()
process.disconnect()
