// Appends while the disk refuses to flush, tells how that ended, and dies: path, flag, content.

import { writeFileSync } from 'node:fs'

import { FactstrSqliteStore } from '../../index.js'

const [path, flag, content] = process.argv.slice(2)
const store = await FactstrSqliteStore.open(path)
await store.append([{ event_type: 'first', payload: 1 }])
writeFileSync(flag, content)
const outcome = await store.append([{ event_type: 'second', payload: 'x'.repeat(9000) }]).then(
  () => 'stored',
  ({ code }) => code
)
process.send(outcome, () => process.kill(process.pid, 'SIGKILL'))
