// Runs a durable stream until it is killed or told to stop: place, name, most events per call. Takes
// over from a holder, and notes what it has handled in a file of its own before the call is over.

import { once } from 'node:events'
import { appendFileSync } from 'node:fs'

import { openAt } from './place.mjs'

const [place, name, notes, most] = process.argv.slice(2)
const store = await openAt(place)

const subscription = await store.streamAllDurable(
  { name },
  async (records) => {
    await null
    const numbers = records.map(({ sequence_number: number }) => Number(number))
    appendFileSync(notes, `${numbers.join(' ')}\n`)
    process.send({ handled: numbers.at(-1) })
  },
  { ifActive: 'wait', maxEventsPerCall: Number(most) }
)
process.send({ registered: true })
void tellEnd()
await once(process, 'message')
await subscription.unsubscribe()
await store.close()
process.disconnect()

async function tellEnd() {
  const { reason } = await subscription.closed
  if (reason !== 'unsubscribed') process.send({ ended: reason })
}
