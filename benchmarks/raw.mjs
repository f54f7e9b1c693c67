// What one would write by hand with better-sqlite3: one table, its own group commit.

import Database from 'better-sqlite3'

export class RawStore {
  #queue = []

  /** `index`: an expression index on exactly the field that the contexts ask for. */
  constructor(path, { index = false } = {}) {
    this.db = new Database(path)
    this.db.pragma('journal_mode = WAL')
    this.db.pragma('synchronous = FULL')
    this.db.exec(`CREATE TABLE IF NOT EXISTS events (
      sequence_number INTEGER PRIMARY KEY, occurred_at TEXT, event_type TEXT, payload TEXT)`)
    if (index) {
      this.db.exec(`CREATE INDEX IF NOT EXISTS by_item
        ON events (json_extract(payload, '$.item_id'))`)
    }
    this.insert = this.db.prepare(
      'INSERT INTO events (occurred_at, event_type, payload) VALUES (?, ?, ?)'
    )
    const context = `FROM events WHERE json_extract(payload, '$.item_id') = ?`
    this.select = this.db.prepare(`SELECT * ${context} ORDER BY sequence_number`)
    this.newest = this.db.prepare(`SELECT max(sequence_number) AS version ${context}`)
    this.begin = this.db.prepare('BEGIN IMMEDIATE')
    this.commit = this.db.prepare('COMMIT')
  }

  #put(events) {
    const now = new Date().toISOString()
    let last
    for (const { event_type: type, payload } of events) {
      last = this.insert.run(now, type, JSON.stringify(payload)).lastInsertRowid
    }
    return last
  }

  append(events) {
    this.begin.run()
    const last = this.#put(events)
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
    const answers = group.map(({ events }) => this.#put(events))
    this.commit.run()
    for (const [at, { resolve }] of group.entries()) resolve(answers[at])
  }

  read(item) {
    return this.select.all(item).map((row) => ({ ...row, payload: JSON.parse(row.payload) }))
  }

  appendIf(events, item, expected) {
    this.begin.run()
    const done = this.newest.get(item).version === expected
    if (done) this.#put(events)
    this.commit.run()
    return done
  }

  close() {
    this.db.close()
  }
}
