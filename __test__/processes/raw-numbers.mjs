// Numbers that JSON.rawJSON hands over as their text, in payloads and in predicates.

import { openAt } from './place.mjs'

const store = await openAt(process.argv[2])
const found = {}
const having = (predicate) => ({ filters: [{ payload_predicates: [predicate] }] })
const texts = ['5', '0e-20000', '0e99999999999999999999', `1.${'0'.repeat(20_000)}`, '1e-400']
for (const [at, text] of texts.entries()) {
  const name = text.slice(0, 25)
  const context = having({ at, k: JSON.rawJSON(text) })
  await store.append([{ event_type: 'raw', payload: { at, k: JSON.rawJSON(text) } }])
  const { event_records: facts, current_context_version: version } = await store.query(context)
  const [missed, met] = [null, version].map((expected) =>
    store.appendIf([{ event_type: 'after', payload: { at } }], context, expected)
  )
  found[name] = [
    facts.length,
    (await store.query(having({ at, k: Number(text) }))).event_records.length,
    (await missed).conflict !== null,
    (await met).conflict === null
  ]
}
console.log(JSON.stringify(found))
await store.close()
