// Holds durable streams as it is told by messages `[id, command, argument]`, and answers with `[id, answer]`:
// place. The calls of the first registration wait for `settle`.

import { openAt } from './place.mjs'

const [place] = process.argv.slice(2)
const store = await openAt(place)
const streams = []
let settle
const settled = new Promise((resolve) => {
  settle = resolve
})

const commands = {
  /** Answers with the number of the stream, or with why there is none. */
  async register(name) {
    const stream = { calls: [] }
    const handle = async (records) => {
      stream.calls.push(records.map(({ sequence_number: number }) => Number(number)))
      if (stream === streams[0]) await settled
    }
    streams.push(stream)
    try {
      stream.subscription = await store.streamAllDurable({ name }, handle, { onError() {} })
      return streams.indexOf(stream)
    } catch ({ code }) {
      return code
    }
  },
  calls: (number) => streams[number].calls,
  closed: async (number) => (await streams[number].subscription.closed).reason,
  settle: () => settle(),
  async end() {
    await store.close()
    process.disconnect()
  }
}

process.on('message', async ([id, command, argument]) => {
  const answer = await commands[command](argument)
  if (process.connected) process.send([id, answer])
})
process.send(['ready'])
