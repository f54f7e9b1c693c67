import { join } from 'node:path'

import { isInstalled, main, root, run, setUp } from './setup.mjs'

/** Studies of the PostgreSQL store, which are no part of the report. */
const STUDIES = ['postgres-indexes', 'postgres-sizes']

main(() => {
  setUp()
  for (const folder of ['benchmarks', 'benchmarks/emmett-sqlite']) {
    const cwd = join(root, folder)
    if (!isInstalled(cwd)) {
      run('Installing what is compared with', 'npm', ['ci', '--no-audit', '--no-fund'], { cwd })
    }
  }
  const args = process.argv.slice(2)
  const study = STUDIES.find((each) => args.includes(each))
  run('Measuring', process.execPath, [
    '--expose-gc',
    study ? `benchmarks/${study}.mjs` : 'benchmarks/run.mjs',
    ...args.filter((each) => each !== study)
  ])
})
