// How the PostgreSQL store's index was chosen: the ways to find events by what their payloads say, each
// filled with the same events in the same groups of 64, and asked the same questions.
//
// `npm run bench -- postgres-indexes`, with --quick for a tenth of the sizes. Prints Markdown;
// results/postgres-indexes.md keeps it. The groups are committed by the server itself, out of a table
// that has them ready, so that only the cost of the index differs. Rates are with fsync and one
// commit per group; the filling between the sizes shares a commit and does not wait for the disk.
// Questions are planned for their values and on analysed tables, which is the best case of those that depend
// on the planner; the last columns are planned for any value, as prepared statements and functions are in
// the end.

import * as fs from 'node:fs'
import { parseArgs } from 'node:util'

import { growing, unrelated } from './events.mjs'
import { wanderingNumbers } from './loops.mjs'
import { median, now } from './measure.mjs'
import { number } from './report.mjs'
import { openServer } from './server.mjs'

const { values: args } = parseArgs({ options: { quick: { type: 'boolean', default: false } } })
const SIZES = [200_000, 1_000_000].map((size) => (args.quick ? size / 10 : size))
const GROUP = 64
/** Of a rate: groups a round. */
const GROUPS = args.quick ? 25 : 100
const ROUNDS = 3
/** Of one question: at most so many times, and not longer than this many seconds but three times. */
const TIMES = 50
const PATIENCE = 1.5

const EVENTS = `sequence_number bigint PRIMARY KEY, occurred_at timestamptz NOT NULL, event_type text NOT NULL`
const ordinary = `INSERT INTO {name} SELECT sequence_number, now(), event_type, payload
  FROM source WHERE batch = at;`

/**
 * `tables`: their definition. `insert`: a group. The questions have the facet $1, the predicate $2 and a
 * sequence number $3. `index`: an expression for its size.
 */
const LAYOUTS = [
  {
    title: 'no index',
    tables: `CREATE TABLE {name} (${EVENTS}, payload text NOT NULL)`,
    insert: ordinary
  },
  {
    title: 'ordered postings, a row per facet and group',
    tables: `CREATE TABLE {name} (${EVENTS}, payload text NOT NULL);
      CREATE TABLE {name}_postings (facet bigint NOT NULL, sequence_number bigint NOT NULL,
        before integer[], PRIMARY KEY (facet, sequence_number))`,
    insert: `${ordinary} INSERT INTO {name}_postings SELECT facet, sequence_number, before
      FROM source_postings WHERE batch = at;`,
    index: `pg_total_relation_size('{name}_postings')`,
    context: `SELECT e.* FROM {name}_postings p CROSS JOIN LATERAL unnest(p.before || 0) d
      JOIN {name} e ON e.sequence_number = p.sequence_number - d WHERE p.facet = $1 ORDER BY 1`,
    newest: `SELECT sequence_number FROM {name}_postings WHERE facet = $1
      ORDER BY sequence_number DESC LIMIT 1`,
    after: `SELECT 1 FROM {name}_postings WHERE facet = $1 AND sequence_number > $3 LIMIT 1`
  },
  {
    title: 'postings, a row per facet and event',
    tables: `CREATE TABLE {name} (${EVENTS}, payload text NOT NULL);
      CREATE TABLE {name}_postings (facet bigint NOT NULL, sequence_number bigint NOT NULL,
        PRIMARY KEY (facet, sequence_number))`,
    insert: `${ordinary} INSERT INTO {name}_postings SELECT DISTINCT facet, sequence_number
      FROM source, unnest(facets) facet WHERE batch = at;`,
    index: `pg_total_relation_size('{name}_postings')`,
    context: `SELECT e.* FROM {name}_postings p JOIN {name} e USING (sequence_number)
      WHERE p.facet = $1 ORDER BY 1`,
    newest: `SELECT sequence_number FROM {name}_postings WHERE facet = $1
      ORDER BY sequence_number DESC LIMIT 1`,
    after: `SELECT 1 FROM {name}_postings WHERE facet = $1 AND sequence_number > $3 LIMIT 1`
  },
  ...['on', 'off'].map((fastupdate) => ({
    title: `GIN jsonb_path_ops, fastupdate ${fastupdate}`,
    tables: `CREATE TABLE {name} (${EVENTS}, payload jsonb NOT NULL);
      CREATE INDEX {name}_gin ON {name} USING gin (payload jsonb_path_ops)
      WITH (fastupdate = ${fastupdate}, gin_pending_list_limit = 64)`,
    insert: ordinary.replace('payload', 'payload::jsonb'),
    index: `pg_relation_size('{name}_gin')`,
    context: `SELECT * FROM {name} WHERE payload @> $2 ORDER BY sequence_number`,
    newest: `SELECT sequence_number FROM {name} WHERE payload @> $2 ORDER BY sequence_number DESC LIMIT 1`,
    after: `SELECT 1 FROM {name} WHERE payload @> $2 AND sequence_number > $3 LIMIT 1`
  })),
  {
    title: 'GIN on an array of facets, fastupdate off',
    tables: `CREATE TABLE {name} (${EVENTS}, payload text NOT NULL, facets bigint[] NOT NULL);
      CREATE INDEX {name}_gin ON {name} USING gin (facets) WITH (fastupdate = off)`,
    insert: ordinary.replace('payload', 'payload, facets'),
    index: `pg_relation_size('{name}_gin') + (SELECT sum(pg_column_size(facets)) FROM {name})`,
    context: `SELECT * FROM {name} WHERE facets @> ARRAY[$1] ORDER BY sequence_number`,
    newest: `SELECT sequence_number FROM {name} WHERE facets @> ARRAY[$1]
      ORDER BY sequence_number DESC LIMIT 1`,
    after: `SELECT 1 FROM {name} WHERE facets @> ARRAY[$1] AND sequence_number > $3 LIMIT 1`
  }
].map((layout, at) => {
  const named = ([key, text]) => [key, text.replaceAll('{name}', `layout_${at}`)]
  return { name: `layout_${at}`, ...Object.fromEntries(Object.entries(layout).map(named)) }
})

/** What the store indexes: every scalar with its path, every container below the root, the type. */
function facetsOf({ event_type: type, payload }) {
  const facets = [`type ${type}`]
  const visit = (path, value) => {
    if (value === null || typeof value !== 'object') facets.push(`${path}=${JSON.stringify(value)}`)
    else {
      if (path !== '') facets.push(`${path}${Array.isArray(value) ? '[]' : '{}'}`)
      for (const [key, member] of Object.entries(value)) {
        visit(Array.isArray(value) ? `${path}[]` : `${path}.${key}`, member)
      }
    }
  }
  visit('', payload)
  return facets
}

/** Where a part of the log begins and ends, in groups. */
class Log {
  #at = 0
  #groups = 0

  constructor(client) {
    this.client = client
  }

  /** Puts events at the end of the source; resolves to its groups. */
  async extend(count, factAt) {
    const first = this.#groups + 1
    for (let from = 0; from < count; from += 80 * GROUP) {
      const some = Math.min(80 * GROUP, count - from)
      const facts = Array.from({ length: some }, (_, k) => factAt(from + k))
      await this.client.query({
        name: 'extend',
        text: `INSERT INTO source SELECT $1 + place, $2 + (place - 1) / ${GROUP}, event_type, payload,
            ARRAY(SELECT hashtextextended(f, 0) FROM jsonb_array_elements_text(facets::jsonb) f)
          FROM unnest($3::text[], $4::text[], $5::text[])
            WITH ORDINALITY e (event_type, payload, facets, place)`,
        values: [
          this.#at,
          this.#groups + 1,
          facts.map(({ event_type: type }) => type),
          facts.map(({ payload }) => JSON.stringify(payload)),
          facts.map((fact) => JSON.stringify(facetsOf(fact)))
        ]
      })
      this.#at += some
      this.#groups += Math.ceil(some / GROUP)
    }
    await this.client.query(
      `INSERT INTO source_postings
       SELECT batch, facet, max(sequence_number),
         nullif(array_remove(array_agg(DISTINCT (last - sequence_number)::integer), 0), '{}')
       FROM (
         SELECT batch, facet, sequence_number,
           max(sequence_number) OVER (PARTITION BY batch, facet) AS last
         FROM source, unnest(facets) facet WHERE batch BETWEEN $1 AND $2
       ) p GROUP BY batch, facet`,
      [first, this.#groups]
    )
    // For the plans of the procedures.
    await this.client.query('ANALYZE source, source_postings')
    return { first, last: this.#groups }
  }
}

async function create(client) {
  await client.query(`CREATE TABLE source (sequence_number bigint, batch bigint, event_type text,
    payload text, facets bigint[]); CREATE INDEX ON source (batch);
    CREATE TABLE source_postings (batch bigint, facet bigint, sequence_number bigint, before integer[]);
    CREATE INDEX ON source_postings (batch)`)
  for (const { name, tables, insert } of LAYOUTS) {
    await client.query(tables)
    await client.query(`CREATE PROCEDURE fill_${name} (first bigint, last bigint, each integer)
      LANGUAGE plpgsql AS $$
      BEGIN
        FOR at IN first..last LOOP
          ${insert}
          IF at % each = 0 THEN COMMIT; END IF;
        END LOOP;
      END $$`)
  }
}

async function fill(client, { name }, { first, last }, { each, waits }) {
  await client.query(`SET synchronous_commit = ${waits ? 'on' : 'off'}`)
  const start = now()
  await client.query(`CALL fill_${name} (${first}, ${last}, ${each})`)
  return now() - start
}

async function rates(client, log, start) {
  const found = new Map(LAYOUTS.map(({ name }) => [name, []]))
  for (let round = 0; round < ROUNDS; round++) {
    const count = GROUPS * GROUP
    const groups = await log.extend(count, (n) => unrelated(start + round * count + n))
    for (const layout of LAYOUTS) {
      found
        .get(layout.name)
        .push(count / (await fill(client, layout, groups, { each: 1, waits: true })))
    }
  }
  return (name) => `${number(median(found.get(name)))}/s`
}

/** The median latency, and the buffers that the last one touched. */
async function ask(client, sql, questions, mode) {
  await client.query(`SET plan_cache_mode = ${mode}`)
  await client.query(`PREPARE asked (bigint, jsonb, bigint) AS ${sql}`)
  const literal = ({ facet, predicate, after }) => `(${facet}, '${predicate}', ${after})`
  let times
  let last
  // What a first pass brings into memory, the second one, which counts, finds there.
  for (let pass = 0; pass < 2; pass++) {
    times = []
    const start = now()
    for (const question of questions) {
      if (times.length >= 3 && now() - start > PATIENCE) break
      last = `EXECUTE asked ${literal(question)}`
      const asked = performance.now()
      await client.query(last)
      times.push(performance.now() - asked)
    }
  }
  const { rows } = await client.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${last}`)
  await client.query('DEALLOCATE asked')
  const { Plan: plan } = rows[0]['QUERY PLAN'][0]
  return `${number(median(times))} ms (${number(plan['Shared Hit Blocks'] + plan['Shared Read Blocks'])})`
}

/** As many of each context as are asked, with the newest match as where the condition looks from. */
async function contexts(client, size) {
  const next = wanderingNumbers(size / 10)
  const known = LAYOUTS[1]
  const of = async (facet, predicate) => {
    const [{ hash }] = (await client.query('SELECT hashtextextended($1, 0)::text AS hash', [facet]))
      .rows
    const { rows } = await client.query(
      `SELECT max(sequence_number)::text AS newest FROM ${known.name}_postings WHERE facet = $1`,
      [hash]
    )
    return { facet: hash, predicate: JSON.stringify(predicate), after: rows[0].newest ?? '0' }
  }
  const item = (id) => of(`.item_id=${JSON.stringify(id)}`, { item_id: id })
  const many = async (make) => {
    const made = []
    for (let at = 0; at < TIMES; at++) made.push(await make(at))
    return made
  }
  return {
    rare: await many(() => item(`item-${next()}`)),
    empty: await many((at) => item(`nothing-${at}`)),
    huge: await many(() => of('.person.verified=true', { person: { verified: true } }))
  }
}

const FOR_VALUES = 'force_custom_plan'
const FOR_ANY = 'force_generic_plan'
const COLUMNS = [
  ['a context of ten', 'context', 'rare'],
  ['an empty one', 'context', 'empty'],
  ['newest of ten', 'newest', 'rare'],
  ['newest of half the log', 'newest', 'huge'],
  ['after the newest of ten', 'after', 'rare'],
  ['after the newest of half the log', 'after', 'huge'],
  ['newest of ten, any value', 'newest', 'rare', FOR_ANY],
  ['newest of none, any value', 'newest', 'empty', FOR_ANY],
  ['newest of half the log, any value', 'newest', 'huge', FOR_ANY]
]

async function measure({ pool, settle, header }) {
  const told = []
  const tell = (line) => {
    told.push(line)
    console.log(line)
  }
  const progress = (line) => console.error(`  … ${line}`)
  for (const line of header) tell(`- ${line}`)
  const client = await pool.connect()
  try {
    await create(client)
    const log = new Log(client)
    let from = 0
    for (const to of SIZES) {
      progress(`making ${number(to)} events`)
      const factAt = growing({ from, to })
      const begin = from
      const groups = await log.extend(to - from, (n) => factAt(begin + n))
      for (const layout of LAYOUTS) {
        const took = await fill(client, layout, groups, { each: 16, waits: false })
        progress(`${layout.title}: filled in ${number(took)} s`)
      }
      await settle()
      const asked = await contexts(client, to)
      const sized = []
      for (const { name, title, index, ...questions } of LAYOUTS) {
        const { rows } = await client.query(
          `SELECT (${index ?? '0'})::float8 AS index, sum(pg_total_relation_size(oid))::float8 AS total
           FROM pg_class WHERE relname IN ('${name}', '${name}_postings')`
        )
        const [{ index: bytes, total }] = rows
        const cells = [`${number(Math.round(bytes / 1e6))} MB`, number(Math.round(total / to))]
        for (const [, question, which, mode = FOR_VALUES] of COLUMNS) {
          const sql = questions[question]
          cells.push(sql ? await ask(client, sql, asked[which], mode) : '')
        }
        sized.push({ name, title, cells })
        progress(`${title}: ${cells.join(' | ')}`)
      }
      const rate = await rates(client, log, 1e9 + from)
      tell('')
      tell(`${number(to)} events; latencies in brackets with the buffers touched`)
      tell('')
      const head = [
        '',
        'groups of 64',
        'index',
        'bytes per event',
        ...COLUMNS.map(([title]) => title)
      ]
      tell(`| ${head.join(' | ')} |`)
      tell(`|${' --- |'.repeat(head.length)}`)
      for (const { name, title, cells } of sized)
        tell(`| ${[title, rate(name), ...cells].join(' | ')} |`)
      from = to
    }
  } finally {
    client.release()
  }
  const results = new URL('./results/', import.meta.url)
  fs.mkdirSync(results, { recursive: true })
  fs.writeFileSync(new URL('postgres-indexes.md', results), `${told.join('\n')}\n`)
}

const server = await openServer()
try {
  await measure(server)
} finally {
  await server.stop()
}
