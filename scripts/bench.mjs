import { join } from 'node:path'

import { isInstalled, main, root, run, setUp } from './setup.mjs'

/** The study of the PostgreSQL store's index, which is no part of the report. */
const STUDY = 'postgres-indexes'

main(() => {
  setUp()
  const cwd = join(root, 'benchmarks')
  if (!isInstalled(cwd)) {
    run('Installing what is compared with', 'npm', ['ci', '--no-audit', '--no-fund'], { cwd })
  }
  const args = process.argv.slice(2)
  const isStudy = args.includes(STUDY)
  run('Measuring', process.execPath, [
    '--expose-gc',
    isStudy ? `benchmarks/${STUDY}.mjs` : 'benchmarks/run.mjs',
    ...args.filter((each) => each !== STUDY)
  ])
})
