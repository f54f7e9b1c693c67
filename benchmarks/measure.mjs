// Figures: how they are taken, and how they are told.

import * as fs from 'node:fs'
import { join } from 'node:path'

export const rows = []

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
export const percentile = (values, p) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * p)]
export const number = (value) =>
  value >= 100 || Number.isInteger(value)
    ? Math.round(value).toLocaleString('en')
    : value.toPrecision(3)
export const now = () => performance.now() / 1000

export function report(what, { ours, theirs = '', ratio, target, met }) {
  const row = { what, ours, theirs, ratio: ratio === undefined ? '' : number(ratio), target, met }
  rows.push(row)
  console.log(line(row))
}

export function line({ what, ours, theirs, ratio, target, met }) {
  const verdict = met === undefined ? '' : met ? 'yes' : '**no**'
  return `| ${what} | ${ours} | ${theirs} | ${ratio} | ${target ?? ''} | ${verdict} |`
}

/** Runs `work` over and over for some seconds; returns how often per second. */
export async function rate(work, seconds) {
  const start = now()
  let count = 0
  while (now() - start < seconds) count += (await work()) ?? 1
  return count / (now() - start)
}

/** Interleaved, so that noise of the machine meets both; medians of the rounds. */
export async function versus(ours, theirs, { rounds, seconds }) {
  const results = { ours: [], theirs: [] }
  for (let round = 0; round < rounds; round++) {
    results.ours.push(await rate(ours, seconds))
    results.theirs.push(await rate(theirs, seconds))
  }
  return { ours: median(results.ours), theirs: median(results.theirs) }
}

/** The same for any number of sides, each of which tells its own rate: `{ name: median }`. */
export async function interleaved(sides, rounds) {
  const results = Object.fromEntries(Object.keys(sides).map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of Object.entries(sides)) results[name].push(await measure(round))
  }
  return Object.fromEntries(Object.entries(results).map(([name, all]) => [name, median(all)]))
}

export function fsyncLatency(folder) {
  const path = join(folder, 'fsync')
  const file = fs.openSync(path, 'w')
  const times = []
  for (let n = 0; n < 200; n++) {
    fs.writeSync(file, Buffer.alloc(4096))
    const start = now()
    fs.fsyncSync(file)
    times.push(now() - start)
  }
  fs.closeSync(file)
  fs.rmSync(path)
  return `p50 ${number(median(times) * 1e6)} µs, p99 ${number(percentile(times, 0.99) * 1e6)} µs`
}

export function reportVersus(what, { ours, theirs }, least) {
  const ratio = ours / theirs
  const both = { ours: `${number(ours)}/s`, theirs: `${number(theirs)}/s` }
  const target = least === undefined ? undefined : `≥ ${least}`
  report(what, { ...both, ratio, target, met: least === undefined ? undefined : ratio >= least })
}

/** A row whose figure has to be below (`most`) or above (`least`) a target, in its own unit. */
export function reportBound(what, text, value, { least, most, unit }) {
  const met = least === undefined ? value < most : value >= least
  const target = least === undefined ? `< ${number(most)} ${unit}` : `≥ ${number(least)}${unit}`
  report(what, { ours: text, target, met })
}
