// W5 selective queries; W6 all of it; W10 what a store takes of disk, memory and time to open.

import { growing } from '../events.mjs'
import { grownBy, interleaved, median, now, sample } from '../measure.mjs'
import { number } from '../report.mjs'
import { compare } from '../works.mjs'
import { contextOf } from '../loops.mjs'

export async function W5(bench, size) {
  const { report, store, label, sides, rounds, seconds } = bench
  const title = `W5 ${label}: query of the ten events of an item, one caller, ${number(size)} stored`
  const key = { workload: 'W5', store, size }
  const { ours } = await compare(bench, title, key, 'query', { callers: 1, items: size / 10 })
  if (store === 'sqlite') {
    report.target(`${title}, p50`, ours.latency[0.5], { most: 100, unit: ' µs' })
  }
  await compare(
    bench,
    `W5 ${label}: the same, 64 callers, ${number(size)} stored`,
    { ...key, callers: 64 },
    'query',
    { callers: 64, items: size / 10 }
  )
  let n = 0
  const two = await interleaved(
    {
      [sides[0].name]: (options) =>
        sample(
          () =>
            sides[0].store.query({
              filters: [
                { payload_predicates: [{ batch_id: (n++ * 37) % (size / 100), decade: 3 }] }
              ]
            }),
          options
        )
    },
    { rounds, seconds }
  )
  const both = `W5 ${label}: query by two fields that match 100 and a tenth, ${number(size)} stored`
  report.rates(both, { workload: 'W5-two', store, size }, two)
  if (store === 'sqlite') {
    const [{ latency }] = Object.values(two)
    report.target(`${both}, p50`, latency[0.5], { most: 200, unit: ' µs' })
  }
}

const LEAST_READ = { sqlite: 400_000, postgres: 300_000 }

export async function W6(bench, size) {
  const { report, store, label, sides, rounds } = bench
  const texts = Array.from({ length: 100_000 }, (_, n) =>
    JSON.stringify(growing({ from: 0, to: size })(n).payload)
  )
  const found = {}
  const take = (name, count, took) => (found[name] ??= []).push(count / took)
  let grown = 0
  for (let round = 0; round < rounds; round++) {
    for (const side of sides) {
      if (!side.readAll || side.missing) continue
      const start = now()
      if (side.kind === 'ours') {
        const { result, megabytes } = await grownBy((look) => readAll(side.store, look))
        take(side.name, result, now() - start)
        grown = Math.max(grown, megabytes)
      } else take(side.name, await side.readAll(), now() - start)
    }
    const start = now()
    for (const text of texts) JSON.parse(text)
    take('JSON.parse of the payloads alone', texts.length, now() - start)
  }
  const rates = Object.fromEntries(
    Object.entries(found).map(([name, all]) => [
      name,
      { rate: median(all), least: Math.min(...all), most: Math.max(...all) }
    ])
  )
  for (const side of sides) if (rates[side.name]) rates[side.name].kind = side.kind
  const title = `W6 ${label}: reading all events as objects, ${number(size)} stored`
  report.rates(title, { workload: 'W6', store, size }, rates)
  const ours = rates[sides[0].name].rate
  if (LEAST_READ[store]) report.target(title, ours, { least: LEAST_READ[store], unit: '/s' })
  report.target(
    `${title}, to JSON.parse alone`,
    ours / rates['JSON.parse of the payloads alone'].rate,
    {
      least: 0.8
    }
  )
  report.target(`${title}, resident memory that it took`, grown, { most: 100, unit: ' MB' })
}

async function readAll(store, look) {
  let count = 0
  for await (const { payload } of store.read()) {
    if (payload !== undefined && ++count % 20_000 === 0) look()
  }
  return count
}

/** Bytes of the payloads of a store that was filled. */
function payloadBytes(sizes) {
  let bytes = 0
  let from = 0
  for (const to of sizes) {
    const factAt = growing({ from, to })
    for (let n = from; n < to; n++) bytes += Buffer.byteLength(JSON.stringify(factAt(n).payload))
    from = to
  }
  return bytes
}

/** Just after all were filled to `size`, in `took` seconds by name. */
export async function W10(bench, size, took) {
  const { report, store, label, sides, sizes, diskOf } = bench
  const payloads = payloadBytes(sizes)
  const facts = [
    ['payloads', `${number(payloads / 1e6)} MB, ${number(payloads / size)} bytes each`]
  ]
  for (const side of sides) {
    if (side.missing) {
      facts.push([side.name, `n/a: ${side.missing}`])
      continue
    }
    const disk = await diskOf?.(side)
    const filled = took[side.name] && `filled with ${number(size / took[side.name])} events/s`
    const onDisk =
      disk && `${number(disk.bytes / size)} bytes per event on disk${disk.detail ?? ''}`
    facts.push([side.name, [filled, onDisk].filter(Boolean).join(', ')])
    if (side.kind === 'ours' && disk && store === 'sqlite') {
      report.target(`W10 ${label}: bytes on disk per byte of payload`, disk.bytes / payloads, {
        most: 2.5
      })
    }
  }
  facts.push(['resident memory of this process', `${number(process.memoryUsage.rss() / 1e6)} MB`])
  report.facts(
    `W10 ${label}: footprint of ${number(size)} events`,
    { workload: 'W10', store, size },
    facts
  )
}

/** From `open` to the first answer. */
export async function opening(bench, open, size) {
  const times = []
  for (let round = 0; round < bench.rounds + 2; round++) {
    const start = performance.now()
    const store = await open()
    await store.query(contextOf('item-7'))
    times.push(performance.now() - start)
    await store.close()
  }
  const title = `W10 ${bench.label}: open to the first answer, ${number(size)} stored`
  bench.report.target(title, median(times), { most: 50, unit: ' ms' })
}
