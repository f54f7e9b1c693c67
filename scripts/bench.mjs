import { existsSync } from 'node:fs'
import { join } from 'node:path'

import { main, root, run, setUp } from './setup.mjs'

main(() => {
  setUp()
  const cwd = join(root, 'benchmarks')
  if (!existsSync(join(cwd, 'node_modules', 'better-sqlite3'))) {
    run('Installing what is compared with', 'npm', ['ci', '--no-audit', '--no-fund'], { cwd })
  }
  run('Measuring', process.execPath, [
    '--expose-gc',
    'benchmarks/run.mjs',
    ...process.argv.slice(2)
  ])
})
