// W1 single appends, one after the other; W2 many in flight; W3 batches.

import { number } from '../report.mjs'
import { compare } from '../works.mjs'

const stored = (size) => (size === 0 ? 'empty store' : `${number(size)} stored`)

export async function W1(bench, size) {
  const { ours, limit } = await compare(
    bench,
    `W1 ${bench.label}: single appends, each awaited, ${stored(size)}`,
    { workload: 'W1', store: bench.store, size },
    'append',
    { callers: 1 }
  )
  if (limit) {
    bench.report.target(
      `W1 ${bench.label}: awaited appends to those by hand, ${stored(size)}`,
      ours.rate / limit.rate,
      { least: 0.8 }
    )
  }
}

export async function W2(bench, size) {
  for (const callers of [64, 1024]) {
    const { ours, limit } = await compare(
      bench,
      `W2 ${bench.label}: ${number(callers)} single appends in flight, ${stored(size)}`,
      { workload: 'W2', store: bench.store, size, callers },
      'append',
      { callers }
    )
    if (limit && callers === 64) {
      bench.report.target(
        `W2 ${bench.label}: 64 in flight to those by hand, ${stored(size)}`,
        ours.rate / limit.rate,
        { least: bench.store === 'sqlite' ? 0.7 : 0.5 }
      )
    }
  }
}

export async function W3(bench, size) {
  for (const batch of [10, 100, 1000]) {
    await compare(
      bench,
      `W3 ${bench.label}: batches of ${number(batch)}, 16 in flight, ${stored(size)} (batches per second)`,
      { workload: 'W3', store: bench.store, size, batch },
      'append',
      { callers: 16, batch }
    )
  }
}
