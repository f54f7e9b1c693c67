// Appends a fact and asks for it in the same group, which the disk refuses to flush; tells how both ended and what
// takes its number: path, flag.

import { writeFileSync } from 'node:fs'

import { FactstrSqliteStore } from '../../index.js'

const [path, flag] = process.argv.slice(2)
const having = (payload) => ({ filters: [{ payload_predicates: [payload] }] })
const [lost, next] = [{ is: 'lost' }, { is: 'next' }]
const store = await FactstrSqliteStore.open(path)
await store.append([{ event_type: 'first', payload: 1 }])
writeFileSync(flag, '')
const ends = await Promise.allSettled([
  store.append([{ event_type: 'a', payload: lost }]),
  store.appendIf([{ event_type: 'b', payload: null }], having(lost), null)
])
const { last_sequence_number: number } = await store.append([{ event_type: 'a', payload: next }])
const found = []
for (const payload of [lost, next]) {
  const { event_records: facts } = await store.query(having(payload))
  found.push(facts.map(({ sequence_number: at, payload: stored }) => [Number(at), stored]))
}
await store.close()
process.send({ ends: ends.map(({ reason }) => reason?.code), number: Number(number), found })
