import { join } from 'node:path'

import { isInstalled, main, root, run, setUp } from './setup.mjs'

/** Besides the report: studies of the PostgreSQL store, profiles, and putting the last report into the documents. */
const OTHERS = ['postgres-indexes', 'postgres-sizes', 'profile', 'publish']

main(() => {
  setUp()
  for (const folder of ['benchmarks', 'benchmarks/emmett-sqlite']) {
    const cwd = join(root, folder)
    if (!isInstalled(cwd)) {
      run('Installing what is compared with', 'npm', ['ci', '--no-audit', '--no-fund'], { cwd })
    }
  }
  const args = process.argv.slice(2)
  const other = OTHERS.find((each) => args.includes(each))
  run('Measuring', process.execPath, [
    '--expose-gc',
    other ? `benchmarks/${other}.mjs` : 'benchmarks/run.mjs',
    ...args.filter((each) => each !== other)
  ])
})
