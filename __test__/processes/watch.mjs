// Tells the numbers of the events that a live stream delivers, call by call: place, options of the store.

import { openAt } from './place.mjs'

const [place, options] = process.argv.slice(2)
const store = await openAt(place, JSON.parse(options ?? '{}'))
await store.streamAll((records) => {
  process.send({ numbers: records.map(({ sequence_number: number }) => Number(number)) })
})
process.send({ registered: true })
