// Takes part in a race for one context: place, name, rounds. Starts when it is told to.

import { once } from 'node:events'

import { openAt } from './place.mjs'

const [place, name, rounds] = process.argv.slice(2)
const store = await openAt(place)
process.send('ready')
await once(process, 'message')

let won = 0
let conflicts = 0
for (let round = 0; round < Number(rounds); round++) {
  const context = { filters: [{ payload_predicates: [{ round }] }] }
  const { current_context_version: version } = await store.query(context)
  const fact = { event_type: 'won', payload: { round, name } }
  const { conflict } = await store.appendIf([fact], context, version === null ? null : 0n)
  if (conflict === null) won++
  else conflicts++
  // Unrelated facts of this process must not disturb the others.
  await store.append([{ event_type: 'noise', payload: { by: name } }])
}
await store.close()
process.send({ won, conflicts })
process.disconnect()
