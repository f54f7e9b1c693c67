// Puts the last run into docs/performance.md, as it is, and draws it: `npm run bench -- publish`.

import * as fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import * as vega from 'vega'
import { compile } from 'vega-lite'

const here = fileURLToPath(new URL('.', import.meta.url))
const docs = join(here, '..', 'docs')
const plots = join(docs, 'plots')
const LABELS = { memory: 'memory', sqlite: 'SQLite', postgres: 'PostgreSQL' }
const BEGIN = '<!-- what `npm run bench` found -->'
const END = '<!-- up to here -->'

/** Readable on a dark page as well. */
const CONFIG = {
  background: 'white',
  font: 'sans-serif',
  padding: 12,
  view: { stroke: null },
  axis: { gridColor: '#e4e4e4', domainColor: '#888', tickColor: '#888' },
  legend: { orient: 'bottom', columns: 1, labelLimit: 600, title: null },
  title: { anchor: 'start', fontSize: 14 },
  range: { category: ['#0b6e4f', '#b0b0b0', '#707070', '#c8553d', '#3a6ea5', '#8e6c8a'] }
}

const rowsOf = (groups, matches) =>
  groups
    .filter(matches)
    .flatMap((group) =>
      group.rows.filter(({ missing }) => !missing).map((row) => ({ ...row, size: group.size }))
    )

async function draw(name, title, values, mark, encoding) {
  const order = [...new Set(values.map(({ side }) => side))]
  const spec = {
    config: CONFIG,
    width: 560,
    height: 300,
    title,
    data: { values },
    mark,
    encoding: { ...encoding, color: { field: 'side', type: 'nominal', sort: order } }
  }
  const view = new vega.View(vega.parse(compile(spec).spec), { renderer: 'none' })
  fs.writeFileSync(join(plots, `${name}.svg`), `${await view.toSVG()}\n`)
  return `![${title}](plots/${name}.svg)`
}

const axis = (field, title, scale) => ({ field, type: 'quantitative', title, scale })
const log = { type: 'log', nice: false }

/** Rate over the size of the store. */
function overSize(name, title, values) {
  const line = { type: 'line', point: { size: 50 }, strokeWidth: 2 }
  return draw(name, title, values, line, {
    x: { ...axis('size', 'events stored', log), axis: { format: '~s', tickCount: 4 } },
    y: axis('rate', 'per second', { type: 'log' })
  })
}

/** The share of operations that took no longer than that. */
function latencies(name, title, rows) {
  const values = rows.flatMap(({ side, latency }) =>
    Object.entries(latency ?? {}).map(([p, micros]) => ({ side, share: Number(p), micros }))
  )
  const line = { type: 'line', interpolate: 'monotone', strokeWidth: 2 }
  return draw(name, title, values, line, {
    x: axis('micros', 'microseconds', { type: 'log' }),
    y: { ...axis('share', 'share of operations', {}), axis: { format: '%' } },
    order: { field: 'share' }
  })
}

async function drawAll({ groups }) {
  fs.mkdirSync(plots, { recursive: true })
  const found = []
  for (const store of new Set(groups.map((group) => group.store))) {
    const label = LABELS[store]
    for (const callers of [1, 64]) {
      const is = (group) =>
        group.workload === 'W4' && group.store === store && group.callers === callers
      const rows = rowsOf(groups, is)
      if (rows.length === 0) continue
      const who = callers === 1 ? 'one caller' : '64 callers'
      const title = `${label}: read, decide, append on condition, ${who}`
      found.push(await overSize(`${store}-loops-${callers}`, title, rows))
      if (callers > 1) continue
      const largest = Math.max(...rows.map(({ size }) => size))
      found.push(
        await latencies(
          `${store}-loop-latencies`,
          `${title}, ${largest.toLocaleString('en')} events stored`,
          rows.filter(({ size }) => size === largest)
        )
      )
    }
    const appends = rowsOf(
      groups,
      (group) => group.workload === 'W1' && group.store === store && group.size === 0
    )
    if (appends.length > 0) {
      const title = `${label}: awaited single appends`
      found.push(await latencies(`${store}-append-latencies`, title, appends))
    }
  }
  return found
}

const figures = JSON.parse(fs.readFileSync(join(here, 'results', 'latest.json'), 'utf8'))
const table = fs.readFileSync(join(here, 'results', 'latest.md'), 'utf8')
const path = join(docs, 'performance.md')
const text = fs.readFileSync(path, 'utf8')
const [start, end] = [text.indexOf(BEGIN), text.indexOf(END)]
if (start < 0 || end < start) throw new Error(`${path} has no place for it: ${BEGIN} … ${END}`)
const images = await drawAll(figures)
fs.writeFileSync(
  path,
  [text.slice(0, start + BEGIN.length), ...images, table.trim(), text.slice(end)].join('\n\n')
)
console.log(`${path} and ${images.length} plots are those of the last run.`)
