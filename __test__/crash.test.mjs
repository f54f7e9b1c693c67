import { expect, test } from 'vitest'

import { FactstrSqliteStore } from '../index.js'
import { ended, start } from './processes/processes.mjs'
import { closing, collect, having, numbersOf, temporaryFolder } from './stores.mjs'

test('every acknowledged append survives kill -9', async () => {
  const path = `${temporaryFolder()}/store.db`
  const acknowledged = []
  for (let round = 0; round < 6; round++) {
    const name = `process-${round}`
    const child = start('write.mjs', path, name)
    const enough = new Promise((resolve) => {
      let count = 0
      child.on('message', (batch) => {
        acknowledged.push({ name, ...batch })
        if (++count === 40 + 60 * round) resolve()
      })
    })
    await enough
    child.kill('SIGKILL')
    await ended(child)
  }

  const store = closing(await FactstrSqliteStore.open(path))
  const records = await collect(store.read())
  expect(numbersOf(records)).toEqual(records.map((_, index) => index + 1))
  for (const { first, size, name, lane, batch } of acknowledged) {
    const range = records.slice(first - 1, first - 1 + size)
    expect(range.map(({ payload }) => payload)).toEqual(
      Array.from({ length: size }, (_, index) => ({ name, lane, batch, index, size }))
    )
  }

  // No batch is there in part, acknowledged or not.
  let at = 0
  while (at < records.length) {
    const { name, lane, batch, size } = records[at].payload
    for (let index = 0; index < size; index++) {
      expect(records[at + index]?.payload).toEqual({ name, lane, batch, index, size })
    }
    at += size
  }

  // The index says what the log says, and the store goes on.
  for (const { name, lane, batch, first, size } of acknowledged.slice(-50)) {
    const { event_records: found } = await store.query(having({ name, lane, batch }))
    expect(numbersOf(found)).toEqual(Array.from({ length: size }, (_, index) => first + index))
  }
  const { first_sequence_number: next } = await store.append([{ event_type: 'on', payload: null }])
  expect(next).toBe(BigInt(records.length + 1))
})
