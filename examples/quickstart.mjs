// Equipment reservations, on a SQLite file. Run it twice: the facts survive.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { FactstrSqliteStore } from '../index.js'

const file = fileURLToPath(new URL('../quickstart.db', import.meta.url))
const store = await FactstrSqliteStore.open(file)

/** The facts that matter to a decision about one item, and no others. */
function contextOf(itemId) {
  return {
    filters: [
      {
        event_types: ['item-reserved', 'item-returned'],
        payload_predicates: [{ item_id: itemId }]
      }
    ]
  }
}

/** Who has the item, according to its facts. */
function holderOf(facts) {
  const last = facts.at(-1)
  return last?.event_type === 'item-reserved' ? last.payload.person : undefined
}

/** The command: read the context, decide, append if the context is still the same. */
async function reserve(itemId, person, pause = () => {}) {
  const context = contextOf(itemId)
  for (;;) {
    const { event_records: facts, current_context_version: version } = await store.query(context)
    const holder = holderOf(facts)
    if (holder !== undefined) {
      console.log(`  ${person}: sorry, ${itemId} is with ${holder}`)
      return false
    }
    console.log(`  ${person}: ${itemId} looks free at context version ${version}`)
    await pause()
    const fact = { event_type: 'item-reserved', payload: { item_id: itemId, person } }
    const { append_result: appended, conflict } = await store.appendIf([fact], context, version)
    if (conflict === null) {
      console.log(`  ${person}: reserved, as fact number ${appended.first_sequence_number}`)
      return true
    }
    const { actual_context_version: actual } = conflict
    console.log(`  ${person}: conflict, the context is at version ${actual} now; I look again`)
  }
}

async function giveBack(itemId) {
  const { event_records: facts } = await store.query(contextOf(itemId))
  const person = holderOf(facts)
  if (person === undefined) return
  await store.append([{ event_type: 'item-returned', payload: { item_id: itemId, person } }])
  console.log(`  ${person} returns ${itemId}`)
}

/** A read model: who has what, kept in a file beside the store by a durable stream. */
const holdersFile = `${file}.holders.json`
const stream = { name: 'holders' }
const holders = new Map(existsSync(holdersFile) ? JSON.parse(readFileSync(holdersFile)) : [])

/** After a crash the newest facts may come again; here that changes nothing. */
function keepHolders(facts) {
  for (const { event_type: type, payload } of facts) {
    if (type === 'item-reserved') holders.set(payload.item_id, payload.person)
    else holders.delete(payload.item_id)
  }
  writeFileSync(holdersFile, JSON.stringify([...holders]))
}

/** The stream goes on by itself; this waits until it has come as far as the log is now. */
async function upToDate(subscription) {
  const now = await store.headSequenceNumber()
  while (subscription.position < now) await new Promise((resolve) => setTimeout(resolve, 1))
}

const head = await store.headSequenceNumber()
if (head === null) {
  console.log(`\nA new store: ${file}`)
} else {
  console.log(`\nThe store has ${head} facts from earlier runs: ${file}`)
  for await (const { sequence_number: number, event_type: type, payload } of store.read(
    {},
    { backwards: true, limit: 3 }
  )) {
    console.log(`  fact ${number}: ${type} ${JSON.stringify(payload)}`)
  }
  console.log('\nWhat was lent out comes back.')
  await giveBack('camera-1')
  await giveBack('tripod-1')
}

console.log('\nA durable stream keeps a read model: it goes on where the last run ended.')
// Without its file the model is made anew from all facts.
const [before] = await store.listDurableStreams()
if (before !== undefined && !existsSync(holdersFile)) await store.resetDurableStream(stream)
const subscription = await store.streamAllDurable(stream, keepHolders, { maxEventsPerCall: 500 })
console.log(
  `  it was at fact ${before?.position ?? 0n}, and is at fact ${subscription.position} now`
)

console.log('\nAda reserves a tripod. Nobody else wants it.')
await reserve('tripod-1', 'Ada')

console.log('\nAda and Bob want the same camera at the same time.')
let arrived = 0
let bothHaveRead
const barrier = new Promise((resolve) => {
  bothHaveRead = resolve
})
/** Makes sure that both decide on the same facts. */
async function meet() {
  if (++arrived >= 2) bothHaveRead()
  await barrier
}
const outcomes = await Promise.all([
  reserve('camera-1', 'Ada', meet),
  reserve('camera-1', 'Bob', meet)
])
console.log(`  => ${outcomes.filter(Boolean).length} of 2 got it. No lock was held, none was lost.`)

console.log('\nOnly the context counts: the tripod did not get in the way of the camera.')
for (const item of ['camera-1', 'tripod-1']) {
  const { event_records: facts, current_context_version: version } = await store.query(
    contextOf(item)
  )
  console.log(`  ${item}: ${holderOf(facts)} has it, context version ${version}`)
}

console.log('\nThe read model has followed by itself.')
await upToDate(subscription)
for (const [item, person] of holders) console.log(`  ${item}: ${person}`)

console.log(
  `\nThe store has ${await store.headSequenceNumber()} facts. Run me again: they survive.`
)
await store.close()
