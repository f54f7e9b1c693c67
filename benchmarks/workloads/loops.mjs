// W4: read a context, decide, append if it has not changed.

import { contextOf, decide, wandering } from '../loops.mjs'
import { interleaved, sample } from '../measure.mjs'
import { number } from '../report.mjs'
import { compare, freshNumber } from '../works.mjs'

const LEAST_ALONE = { memory: { rate: 50_000 }, sqlite: { ratio: 0.7 }, postgres: { rate: 2000 } }
const LEAST_DISTINCT = { sqlite: 20_000, postgres: 15_000 }

export async function W4(bench, size) {
  const { report, store, label, sides, rounds, seconds } = bench
  const stored = `${number(size)} stored`
  const key = { workload: 'W4', store, size }
  const items = size / 10

  const one = `W4 ${label}: read, decide, appendIf, one caller, ${stored}`
  const alone = await compare(bench, one, { ...key, callers: 1 }, 'loop', { callers: 1, items })
  const { rate, ratio } = LEAST_ALONE[store]
  if (rate) report.target(one, alone.ours.rate, { least: rate, unit: '/s' })
  else
    report.target(`${one}, to that by hand`, alone.ours.rate / alone.limit.rate, { least: ratio })

  const many = `W4 ${label}: 64 such loops on distinct contexts, ${stored}`
  const distinct = await compare(bench, many, { ...key, callers: 64 }, 'loop', {
    callers: 64,
    items
  })
  if (LEAST_DISTINCT[store]) {
    report.target(many, distinct.ours.rate, { least: LEAST_DISTINCT[store], unit: '/s' })
  }

  const { store: ours, name } = sides[0]
  const next = wandering(items)
  const found = await interleaved(
    {
      [`${name}, 64 on one context`]: (options) => hotContext(ours, options),
      'one caller alone, on distinct ones': (options) =>
        sample(() => decide(ours, next(), freshNumber(), items), options)
    },
    { rounds, seconds }
  )
  const hot = `W4 ${label}: 64 loops on one hot context, ${stored}`
  report.rates(hot, { ...key, workload: 'W4-hot' }, found)
  const [together, single] = Object.values(found)
  if (store === 'memory') return
  report.target(`${hot}, to one caller alone`, together.rate / single.rate, { least: 0.25 })
}

/** All count the same events, each reading on from its cursor. The counts must come out without a gap. */
async function hotContext(store, options) {
  const item = `hot-${freshNumber()}`
  const context = contextOf(item)
  const known = Array.from({ length: 64 }, () => ({ count: 0, cursor: undefined }))
  let committed = 0
  const found = await sample(
    async (which) => {
      const own = known[which]
      const { event_records: facts, current_context_version: version } = await store.query({
        ...context,
        min_sequence_number: own.cursor
      })
      own.count += facts.length
      own.cursor = version ?? undefined
      const fact = { event_type: 'counted', payload: { item_id: item, count: own.count + 1 } }
      const { append_result: done } = await store.appendIf([fact], context, version)
      if (done === null) return false
      committed++
      own.count++
      own.cursor = done.last_sequence_number
      return true
    },
    { ...options, callers: 64 }
  )
  const { event_records: all } = await store.query(context)
  const wrong = all.findIndex(({ payload }, at) => payload.count !== at + 1)
  if (all.length !== committed || wrong !== -1) {
    throw new Error(`${committed} commits were counted, ${all.length} are stored; wrong: ${wrong}`)
  }
  return found
}

/** The largest store and one of the smallest size, in turns. */
export async function flatness(bench, small) {
  const { report, store, label, sides, sizes, rounds, seconds } = bench
  const loop = (which, size) => {
    const next = wandering(size / 10)
    return (options) => sample(() => decide(which, next(), freshNumber(), size / 10), options)
  }
  const [least, most] = [sizes[0], sizes.at(-1)]
  const found = await interleaved(
    {
      [`${number(most)} stored`]: loop(sides[0].store, most),
      [`${number(least)} stored`]: loop(small, least)
    },
    { rounds, seconds }
  )
  const title = `W4 ${label}: one caller at the largest store and the smallest`
  report.rates(title, { workload: 'W4-flat', store }, found)
  const [large, other] = Object.values(found)
  report.target(`${title}, ratio`, large.rate / other.rate, { least: 0.8 })
}
