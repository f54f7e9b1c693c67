// Writes large batches until it is killed, so that runs are built and merged meanwhile, and says how
// many of its events were acknowledged: place, name.

import { openAt } from './place.mjs'

const [place, name] = process.argv.slice(2)
// A quick disk lets the index get further before each kill.
const isFile = JSON.parse(place).kind === 'sqlite'
const store = await openAt(place, isFile ? { durability: 'normal' } : {})

let acknowledged = 0
async function writer(lane) {
  for (let batch = 0; ; batch++) {
    const events = Array.from({ length: 400 }, (_, index) => ({
      event_type: `type-${index % 7}`,
      payload: { name, lane, batch, index, context: (batch * 31 + index * 7) % 900 }
    }))
    const { last_sequence_number: last } = await store.append(events)
    acknowledged += events.length
    process.send({ acknowledged, last: Number(last) })
  }
}

await Promise.all([0, 1, 2].map(writer))
