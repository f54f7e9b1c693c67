// W11: the course speedrun.

import { compare } from '../works.mjs'

export async function W11(bench) {
  const seconds = bench.seconds * 5
  await compare(
    { ...bench, seconds },
    `W11 ${bench.label}: course speedrun, one client, operations per second`,
    { workload: 'W11', store: bench.store },
    'speedrun',
    { callers: 1 }
  )
}
