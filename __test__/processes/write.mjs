// Writes batches until it is killed, and says which ones were acknowledged: place, name.

import { openAt } from './place.mjs'

const [place, name] = process.argv.slice(2)
const store = await openAt(place)

async function writer(lane) {
  for (let batch = 0; ; batch++) {
    const size = 1 + (batch % 5)
    const events = Array.from({ length: size }, (_, index) => ({
      event_type: 'written',
      payload: { name, lane, batch, index, size }
    }))
    const { first_sequence_number: first } = await store.append(events)
    process.send({ lane, batch, first: Number(first), size })
  }
}

await Promise.all([0, 1, 2, 3].map(writer))
