// All that is compared.

import { sides as crates } from './crates.mjs'
import { sides as dcb } from './dcb.mjs'
import { sides as emmett } from './emmett.mjs'
import { sides as ours } from './ours.mjs'
import { sides as rawPostgres } from './raw-postgres.mjs'
import { sides as rawSqlite } from './raw-sqlite.mjs'

/**
 * What is measured beside each other, ours first. Each: `{ name, kind, store, about, open(place) }`, `kind` being
 * `ours`, `core` (ours without Node.js), `limit` (written by hand for one purpose: what the machine can do) or `peer`;
 * `isRust` are peers that are measured without Node.js; `place` is
 * `{ path }` of a file or `{ url }` of a database.
 * On PostgreSQL `tables` is the condition on pg_class that tells a side's tables.
 *
 * What is opened has some of these; what it lacks, it can't do:
 *
 * - `append(facts)`: one batch, which is durable when it resolves; `appendAlone(facts)`: the same, if
 *   a single caller is better served otherwise
 * - `loop(item, n, items)`: reads the context of an item, decides, appends if nothing has changed;
 *   `false`: something had; `loopAlone`: as above
 * - `query(item)`: reads an item's events as objects; how many
 * - `readAll()`: reads all events in order, as objects; how many
 * - `speedrun`: `{ register(kind, id), enrol(student, course) }`
 * - `fill({ from, to }, factAt, deadline)`: instead of batches of 100 by `append`; `false`: not done in time
 * - `fillOnly`: `append` serves to fill, and is not measured
 * - `mostCallers`: more of them at a time are beyond it
 * - `measure(work, options)`: instead of all these, if it runs in a process of its own: resolves to what
 *   `sample` in measure.mjs does, and for `fill` to `{ done }`; `measures` says for which works, and for how many
 *   callers at most
 * - `close()`
 */
export const SIDES = [...ours, ...rawSqlite, ...rawPostgres, ...dcb, ...emmett, ...crates]

/** Opens all sides of a store at a place; those that can't be opened are `{ name, missing }`. */
export async function openSides(store, place) {
  const opened = []
  for (const [at, { open, ...side }] of SIDES.filter((each) => each.store === store).entries()) {
    try {
      const of = place.path ? { path: `${place.path}-${at}.db` } : place
      const what = await open(of)
      const measure = what.measure && ((work, options) => what.measure(work, options))
      opened.push({ ...side, place: of, ...what, measure, close: () => what.close() })
    } catch (error) {
      if (side.kind === 'ours') throw error
      opened.push({ ...side, missing: error.message.split('\n')[0] })
    }
  }
  return opened
}

export async function closeSides(sides) {
  for (const side of sides) await side.close?.()
}
