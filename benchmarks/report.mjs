// What was found: printed while it is found, and kept as Markdown and JSON.

import * as fs from 'node:fs'
import { join } from 'node:path'

export function number(value) {
  return value >= 100 || Number.isInteger(value)
    ? Math.round(value).toLocaleString('en')
    : value.toPrecision(3)
}

const HEADS = ['', 'per second', 'range', 'factstr is', 'p50', 'p99', 'loop delay p99']
const TARGET_HEADS = ['what', 'found', 'target', 'met']

const cells = (values) => `| ${values.join(' | ')} |`
const tableHead = (heads) => [cells(heads), cells(heads.map(() => '---'))]

export function duration(micros) {
  if (micros === undefined) return ''
  return micros < 1000 ? `${number(micros)} µs` : `${number(micros / 1000)} ms`
}

/** How many times as fast we are. */
function times({ ratio, inRust }) {
  const own = `${number(ratio)} ×`
  return inRust === undefined ? own : `${own} (from Rust ${number(inRust)} ×)`
}

/** What the operating system has to do with a late event loop. */
function withoutProcessor({ unserved }) {
  return Number.isFinite(unserved)
    ? `, ready but without a processor ${Math.round(unserved * 100)} % of the time`
    : ''
}

/** Groups of rows with one side each, and the targets that were met or not. */
export class Report {
  header = []
  groups = []
  targets = []

  say(text) {
    this.header.push(text)
    console.log(`- ${text}`)
  }

  /**
   * `key`: `{ workload, store, size }`, for plots. `found`: `{ side: summary }`, ours being the first. What is measured in
   * Rust is also compared with our crate there.
   */
  rates(title, key, found, missing = {}) {
    const [ours] = Object.values(found)
    const core = Object.values(found).find(({ kind }) => kind === 'core')
    const rows = Object.entries(found).map(([side, summary], at) => ({
      side,
      ...summary,
      ratio: at === 0 ? undefined : ours.rate / summary.rate,
      inRust: core && summary.isRust ? core.rate / summary.rate : undefined
    }))
    for (const [side, reason] of Object.entries(missing)) rows.push({ side, missing: reason })
    this.#add({ title, ...key, rows })
  }

  /** Figures of other kinds: `[[what, text]]`. */
  facts(title, key, facts) {
    this.#add({ title, ...key, facts })
  }

  /** Figures in columns of their own: `heads` and the `lines` of texts; `figures` are kept beside them. */
  table(title, key, heads, lines, figures) {
    this.#add({ title, ...key, table: { heads, lines }, figures })
  }

  #add(group) {
    this.groups.push(group)
    console.log(`\n${markdown(group).join('\n')}`)
  }

  /** A figure with a bound: `least` or `most`, in `unit`. */
  target(what, value, { least, most, unit = '' }) {
    const met = least === undefined ? value < most : value >= least
    const bound = least === undefined ? `< ${number(most)}` : `≥ ${number(least)}`
    const target = { what, found: `${number(value)}${unit}`, target: `${bound}${unit}`, met }
    this.targets.push(target)
    if (!met) console.log(`\nMissed: ${what}: ${target.found}, ${target.target}`)
  }

  /** Bounds that hold for every row of rates. */
  #general() {
    const rates = this.groups.filter(({ rows }) => rows)
    const slow = rates
      .flatMap(({ title, rows }) => rows.map((row) => ({ title, ...row })))
      .filter(({ kind, ratio }) => kind === 'peer' && ratio < 3)
      .map(({ title, side, ...row }) => `${title}: ${times(row)} ${side}`)
    const late = rates
      .filter(({ rows: [ours] }) => ours.loopDelay >= 5)
      .map(
        ({ title, rows: [ours] }) =>
          `${title}: ${number(ours.loopDelay)} ms${withoutProcessor(ours)}`
      )
    return [
      ['At least three times as fast as every peer', slow],
      ['Event-loop delay p99 below 5 ms', late]
    ]
  }

  toMarkdown() {
    return [
      ...this.header.map((each) => `- ${each}`),
      '',
      ...this.groups.flatMap((group) => [...markdown(group), '']),
      ...this.targetsMarkdown(),
      ''
    ].join('\n')
  }

  targetsMarkdown() {
    const general = this.#general().flatMap(([what, exceptions]) => [
      '',
      `**${what}**${exceptions.length === 0 ? ' in every row.' : ', but for'}`,
      '',
      ...exceptions.map((each) => `- ${each}`)
    ])
    return [
      '#### Targets',
      '',
      ...tableHead(TARGET_HEADS),
      ...this.targets.map(({ what, found, target, met }) =>
        cells([what, found, target, met ? 'yes' : '**no**'])
      ),
      ...general
    ]
  }

  save(folder) {
    fs.mkdirSync(folder, { recursive: true })
    fs.writeFileSync(join(folder, 'latest.md'), this.toMarkdown())
    const { header, groups, targets } = this
    fs.writeFileSync(
      join(folder, 'latest.json'),
      `${JSON.stringify({ header, groups, targets }, null, 2)}\n`
    )
  }
}

function markdown({ title, rows, facts, table }) {
  if (table) {
    return [`#### ${title}`, '', ...tableHead(table.heads), ...table.lines.map(cells)]
  }
  if (facts) return [`#### ${title}`, '', ...facts.map(([what, text]) => `- ${what}: ${text}`)]
  const lines = rows.map((row) => {
    if (row.missing) return cells([row.side, `n/a: ${row.missing}`, '', '', '', '', ''])
    return cells([
      row.side,
      number(row.rate),
      `${number(row.least)}–${number(row.most)}`,
      row.ratio === undefined ? '' : times(row),
      duration(row.latency?.[0.5]),
      duration(row.latency?.[0.99]),
      row.ratio === undefined && row.loopDelay !== undefined ? `${number(row.loopDelay)} ms` : ''
    ])
  })
  return [`#### ${title}`, '', ...tableHead(HEADS), ...lines]
}
