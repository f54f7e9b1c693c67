import { main, run, setUp } from './setup.mjs'

main(() => {
  setUp()
  run('Running examples/quickstart.mjs', process.execPath, ['examples/quickstart.mjs'])
})
