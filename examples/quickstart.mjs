// Equipment reservations, on a SQLite file. Run it twice: the facts survive.

import { FactstrSqliteStore } from '../index.js'

const path = new URL('../quickstart.db', import.meta.url).pathname
const store = await FactstrSqliteStore.open(process.platform === 'win32' ? path.slice(1) : path)

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

const head = await store.headSequenceNumber()
if (head === null) {
  console.log(`\nA new store: ${path}`)
} else {
  console.log(`\nThe store has ${head} facts from earlier runs: ${path}`)
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

console.log(
  `\nThe store has ${await store.headSequenceNumber()} facts. Run me again: they survive.`
)
await store.close()
