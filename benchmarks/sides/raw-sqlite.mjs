// What one would write by hand with better-sqlite3: one table, its own group commit.

import Database from 'better-sqlite3'

import { decision } from '../loops.mjs'
import { enrolled, mayEnrol, registered } from '../speedrun.mjs'
import { versionOf } from './versions.mjs'

const version = versionOf('better-sqlite3')

const fieldOf = (name) => `json_extract(payload, '$.${name}')`

class RawStore {
  #queue = []

  /** `fields`: of the payload, each with an index on exactly what is asked for. */
  constructor(path, fields) {
    this.db = new Database(path)
    this.db.pragma('journal_mode = WAL')
    this.db.pragma('synchronous = FULL')
    this.db.exec(`CREATE TABLE IF NOT EXISTS events (
      sequence_number INTEGER PRIMARY KEY, occurred_at TEXT, event_type TEXT, payload TEXT)`)
    for (const field of fields) {
      this.db.exec(`CREATE INDEX IF NOT EXISTS by_${field} ON events (${fieldOf(field)})`)
    }
    this.insert = this.db.prepare(
      'INSERT INTO events (occurred_at, event_type, payload) VALUES (?, ?, ?)'
    )
    this.begin = this.db.prepare('BEGIN IMMEDIATE')
    this.commit = this.db.prepare('COMMIT')
  }

  /** Facts in which one of the fields has its value: how to read them, and how to tell the newest. */
  context(fields) {
    const which = `FROM events WHERE ${fields.map((field) => `${fieldOf(field)} = ?`).join(' OR ')}`
    return {
      select: this.db.prepare(`SELECT * ${which} ORDER BY sequence_number`),
      newest: this.db.prepare(`SELECT max(sequence_number) AS version ${which}`)
    }
  }

  put(events) {
    const at = new Date().toISOString()
    let last
    for (const { event_type: type, payload } of events) {
      last = this.insert.run(at, type, JSON.stringify(payload)).lastInsertRowid
    }
    return last
  }

  append(events) {
    this.begin.run()
    const last = this.put(events)
    this.commit.run()
    return last
  }

  /** Everything that was asked for in one turn of the event loop is one transaction. */
  appendGrouped(events) {
    return new Promise((resolve) => {
      if (this.#queue.push({ events, resolve }) === 1) setImmediate(() => this.#flush())
    })
  }

  #flush() {
    const group = this.#queue
    this.#queue = []
    this.begin.run()
    const answers = group.map(({ events }) => this.put(events))
    this.commit.run()
    for (const [at, { resolve }] of group.entries()) resolve(answers[at])
  }

  /** Reads, lets `decide` make a fact of it, and appends that if nothing has changed. */
  decide({ select, newest }, values, decide) {
    const facts = select.all(...values).map(parsed)
    const fact = decide(facts)
    this.begin.run()
    const changed = newest.get(...values).version !== (facts.at(-1)?.sequence_number ?? null)
    if (!changed) this.put([fact])
    this.commit.run()
    return !changed
  }

  readAll() {
    let count = 0
    for (const row of this.db.prepare('SELECT * FROM events ORDER BY sequence_number').iterate()) {
      if (parsed(row).payload !== undefined) count++
    }
    return count
  }

  close() {
    this.db.close()
  }
}

const parsed = (row) => ({ ...row, payload: JSON.parse(row.payload) })

export const sides = [
  {
    name: `better-sqlite3 ${version} by hand`,
    kind: 'limit',
    store: 'sqlite',
    about:
      'one table without any index, synchronous=FULL; one caller commits on the event loop, more have a group commit',
    async open({ path }) {
      const raw = new RawStore(path, [])
      return {
        appendAlone: (facts) => raw.append(facts),
        append: (facts) => raw.appendGrouped(facts),
        readAll: () => raw.readAll(),
        close: () => raw.close()
      }
    }
  },
  {
    name: `better-sqlite3 ${version} by hand, indexed`,
    kind: 'limit',
    store: 'sqlite',
    about:
      'the same with an index on exactly the fields that are asked for; everything runs on the event loop',
    async open({ path }) {
      const raw = new RawStore(path, ['item_id', 'student_id', 'course_id'])
      const item = raw.context(['item_id'])
      const courses = { course: raw.context(['course_id']), student: raw.context(['student_id']) }
      const both = raw.context(['student_id', 'course_id'])
      return {
        fillOnly: true,
        append: (facts) => raw.appendGrouped(facts),
        loop: (which, n, items) =>
          raw.decide(item, [`item-${which}`], (facts) => decision(facts, n, items)),
        query: (which) => item.select.all(`item-${which}`).map(parsed).length,
        speedrun: {
          register: (kind, id) => raw.decide(courses[kind], [id], () => registered(kind, id)),
          enrol: (student, course) =>
            raw.decide(both, [student, course], (facts) => {
              if (!mayEnrol(facts, student, course)) throw new Error(`${student}, ${course}`)
              return enrolled(student, course)
            })
        },
        close: () => raw.close()
      }
    }
  }
]
