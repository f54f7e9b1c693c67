// W9: four processes with 16 loops each on one store, against one with 64.

import { interleaved } from '../measure.mjs'
import { number } from '../report.mjs'
import { Worker } from '../worker.mjs'

export async function W9(bench, size) {
  const { report, store: kind, label, sides, rounds, seconds } = bench
  const { place } = sides[0]
  const workers = await Promise.all(
    [1, 2, 3, 4].map((which) => Worker.start({ kind, place, items: size / 10, which }))
  )
  const all = async (some, options) => {
    const found = await Promise.all(
      some.map((worker) => worker.ask({ command: 'loops', ...options }))
    )
    return { rate: found.reduce((sum, { rate }) => sum + rate, 0) }
  }
  const found = await interleaved(
    {
      'four processes with 16 loops each': ({ seconds: each }) =>
        all(workers, { callers: 16, seconds: each }),
      'one with 64': ({ seconds: each }) => all(workers.slice(0, 1), { callers: 64, seconds: each })
    },
    { rounds, seconds }
  )
  for (const worker of workers) await worker.end()
  const title = `W9 ${label}: several processes, ${number(size)} stored`
  report.rates(title, { workload: 'W9', store: kind, size }, found)
  const [four, one] = Object.values(found)
  if (kind === 'postgres')
    report.target(`${title}, four to one`, four.rate / one.rate, { least: 1 })
}
