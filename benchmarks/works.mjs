// What is measured on every side alike.

import { growing, unrelated } from './events.mjs'
import { wanderingNumbers } from './loops.mjs'
import { interleaved, now, sample } from './measure.mjs'
import { number } from './report.mjs'
import { operations } from './speedrun.mjs'

/** Distinguishes what measurements append from what stores are filled with. */
let fresh = 1e8

export const freshNumber = () => fresh++

/**
 * A work is `(side, options) => step | undefined`: a function that does it once, for a caller, or nothing if
 * the side can't.
 */
export const works = {
  append(side, { callers, batch = 1 }) {
    const append = (callers === 1 && side.appendAlone) || side.append
    if (!append || side.fillOnly) return undefined
    return () => append(Array.from({ length: batch }, () => unrelated(fresh++)))
  },

  loop(side, { callers, items }) {
    const loop = (callers === 1 && side.loopAlone) || side.loop
    if (!loop) return undefined
    const item = wanderingNumbers(items)
    return () => loop(item(), fresh++, items)
  },

  query(side, { items }) {
    if (!side.query) return undefined
    const item = wanderingNumbers(items)
    return async () => {
      if ((await side.query(item())) < 10) throw new Error(`${side.name}: events are missing`)
    }
  },

  speedrun(side) {
    if (!side.speedrun) return undefined
    const run = operations(side.speedrun)
    return () => run.next()
  }
}

/** Samples one side, wherever it runs; `undefined` if it can't do the work. */
function measuring(side, work, options) {
  if (side.missing || options.callers > (side.mostCallers ?? Infinity)) return undefined
  if (side.measure) {
    if (!(options.callers <= side.measures[work])) return undefined
    return ({ seconds }) => side.measure(work, { ...options, seconds })
  }
  const step = works[work](side, options)
  return step && (({ seconds }) => sample(step, { callers: options.callers, seconds }))
}

/** A peer that fails is missing from then on, and says why; what others do ends the run. */
async function orFailing(side, work) {
  try {
    return await work()
  } catch (error) {
    if (side.kind !== 'peer') throw error
    console.error(`  … ${side.name} has failed: ${error.message}`)
    side.missing = `failed: ${error.message.split('\n')[0].slice(0, 100)}`
    return undefined
  }
}

/** Measures a work on all sides in turns and reports it; resolves to what was found, by kind of side. */
export async function compare({ report, sides, rounds, seconds }, title, key, work, options) {
  const able = {}
  const missing = {}
  for (const side of sides) {
    const measure = measuring(side, work, { callers: 1, ...options })
    if (measure) {
      able[side.name] = async (turn) =>
        side.missing ? undefined : orFailing(side, () => measure(turn))
    } else if (side.missing && side.kind !== 'limit') missing[side.name] = side.missing
  }
  const found = await interleaved(able, { rounds, seconds })
  for (const { name, kind, isRust, missing: why } of sides) {
    if (found[name]) Object.assign(found[name], { kind, isRust })
    else if (able[name]) missing[name] = why
  }
  report.rates(title, key, found, missing)
  const of = (kind) => Object.values(found).find((each) => each.kind === kind)
  return { ours: of('ours'), limit: of('limit') }
}

/** Batches of 100, 64 in flight. */
async function fillByAppending(side, { from, to }, factAt, deadline) {
  let at = from
  let told = now()
  const lane = async () => {
    while (at < to && now() < deadline) {
      const first = at
      at += 100
      const facts = Array.from({ length: Math.min(100, to - first) }, (_, k) => factAt(first + k))
      await side.append(facts)
      if (now() - told > 10) {
        told = now()
        console.error(
          `  … ${side.name}: ${number(Math.min(at, to))} of ${number(to)} events stored`
        )
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(64, side.mostCallers ?? 64) }, lane))
  return at >= to
}

/** Fills all sides up to a size; one that takes too long is missing from then on. Seconds, by name. */
export async function fillAll({ sides, patience }, range) {
  const took = {}
  for (const side of sides) {
    if (side.missing) continue
    console.error(`  … ${side.name} is filled to ${number(range.to)} events`)
    const start = now()
    const deadline = side.kind === 'peer' ? start + patience : Infinity
    const factAt = growing(range)
    const fill = async () =>
      side.measure
        ? (await side.measure('fill', { ...range, deadline })).done
        : side.fill
          ? side.fill(range, factAt, deadline)
          : fillByAppending(side, range, factAt, deadline)
    const isDone = await orFailing(side, fill)
    took[side.name] = now() - start
    if (isDone === false) {
      side.missing = `not filled to ${number(range.to)} events in ${patience} s`
    }
  }
  return took
}
