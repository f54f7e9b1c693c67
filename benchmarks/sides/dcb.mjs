// @dcb-es/event-store on PostgreSQL: contexts are tags that the application chooses, and types.

import { TYPES } from '../events.mjs'
import { decision } from '../loops.mjs'
import { now } from '../measure.mjs'
import { enrolled, mayEnrol, registered } from '../speedrun.mjs'
import { POOL_SIZE, committed, poolOf, types } from './pool.mjs'
import { versionOf } from './versions.mjs'

/** In the stores that are filled all events of an item have one type, which a context may name. */
const typeOf = (item) => TYPES[(item * 7) % TYPES.length]

async function open({ url }) {
  const { AppendConditionError, Query, Tags } = await import('@dcb-es/event-store')
  const { PostgresEventStore } = await import('@dcb-es/event-store-postgres')
  const pool = poolOf(url, { types })
  // More events than that are copied instead of inserted: that fills it faster.
  const store = new PostgresEventStore({ pool, tablePrefix: 'dcb', copyThreshold: 500 })
  await store.ensureInstalled()
  const tagged = ({ event_type: type, payload }, tags) => ({
    type,
    tags: Tags.from(tags),
    data: payload,
    metadata: {}
  })
  const eventOf = (fact) => tagged(fact, [`item:${fact.payload.item_id}`])
  const questionOf = (tags, kinds) =>
    Query.fromItems(tags.map((tag) => ({ types: kinds, tags: Tags.from([tag]) })))

  async function read(query) {
    const facts = []
    let after
    for await (const { event: fact, position } of store.read(query)) {
      facts.push({ event_type: fact.type, payload: fact.data })
      after = position
    }
    return { facts, after }
  }

  /** Reads, lets `decide` make an event of it, and appends that if nothing has changed. */
  async function decide(query, make) {
    const { facts, after } = await read(query)
    const condition = { failIfEventsMatch: query, ...(after && { after }) }
    return committed(
      store.append({ events: make(facts), condition }),
      (error) => error instanceof AppendConditionError
    )
  }
  const itemQuery = (item) => questionOf([`item:item-${item}`], [typeOf(item)])
  const subscriptions = ['course-registered', 'student-registered', 'student-enrolled']

  return {
    append: (facts) => store.append({ events: facts.map(eventOf) }),
    loop: (item, n, items) =>
      decide(itemQuery(item), (facts) => eventOf(decision(facts, n, items))),
    query: async (item) => (await read(itemQuery(item))).facts.length,
    readAll: async () => (await read(Query.all())).facts.length,
    speedrun: {
      register: (kind, id) =>
        decide(questionOf([`${kind}:${id}`], [`${kind}-registered`]), (facts) => {
          if (facts.length > 0) throw new Error(`${kind} ${id} exists`)
          return tagged(registered(kind, id), [`${kind}:${id}`])
        }),
      enrol: (student, course) =>
        decide(questionOf([`student:${student}`, `course:${course}`], subscriptions), (facts) => {
          if (!mayEnrol(facts, student, course)) throw new Error(`${student}, ${course}`)
          return tagged(enrolled(student, course), [`student:${student}`, `course:${course}`])
        })
    },
    async fill({ from, to }, factAt, deadline) {
      const step = 1000
      for (let at = from; at < to; at += step) {
        if (now() > deadline) return false
        const count = Math.min(step, to - at)
        await store.append({
          events: Array.from({ length: count }, (_, k) => eventOf(factAt(at + k)))
        })
      }
      return true
    },
    close: () => pool.end()
  }
}

export const sides = [
  {
    name: `@dcb-es/event-store-postgres ${versionOf('@dcb-es/event-store-postgres')}`,
    kind: 'peer',
    store: 'postgres',
    tables: `relname LIKE 'dcb%'`,
    about:
      'each event has the one tag that is asked for (the speedrun: one or two), each question names the ' +
      `types; a pool of ${POOL_SIZE}`,
    open
  }
]
