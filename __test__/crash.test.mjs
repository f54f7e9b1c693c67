import { describe, expect, test } from 'vitest'

import { openAt } from './processes/place.mjs'
import { ended, start } from './processes/processes.mjs'
import { closing, collect, having, lasting, numbersOf } from './stores.mjs'

describe.each(lasting)('the $name store', ({ place }) => {
  test('every acknowledged append survives kill -9', async () => {
    const shared = place()
    const acknowledged = []
    for (let round = 0; round < 6; round++) {
      const name = `process-${round}`
      const child = start('write.mjs', shared, name)
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

    const store = closing(await openAt(shared))
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
    const { first_sequence_number: next } = await store.append([
      { event_type: 'on', payload: null }
    ])
    expect(next).toBe(BigInt(records.length + 1))
  })

  test('kill -9 while runs are built and merged leaves an index that says what the log says', async () => {
    const shared = place()
    let acknowledged = 0
    // Each time at another moment of the index's work; eight runs of 8,192 events are merged into one.
    for (const enough of [9_000, 31_000, 27_500, 16_000, 40_000, 8_500, 33_000]) {
      const child = start('write-many.mjs', shared, `process-${enough}`)
      acknowledged += await new Promise((resolve) => {
        child.on('message', ({ acknowledged: count }) => {
          if (count >= enough) resolve(count)
        })
      })
      child.kill('SIGKILL')
      await ended(child)
    }

    let store = closing(await openAt(shared))
    for (let sitting = 0; sitting < 2; sitting++) {
      const records = await collect(store.read())
      expect(records.length).toBeGreaterThanOrEqual(acknowledged)
      expect(records.at(-1).sequence_number).toBe(BigInt(records.length))
      const byContext = (context) => records.filter(({ payload }) => payload.context === context)
      for (const context of [0, 1, 77, 450, 899]) {
        const expected = numbersOf(byContext(context))
        const found = await store.query(having({ context }))
        expect(numbersOf(found.event_records)).toEqual(expected)
        const of = expected.filter((number) => records[number - 1].event_type === 'type-3')
        const { event_records: typed } = await store.query(having({ context }, 'type-3'))
        expect(numbersOf(typed)).toEqual(of)
      }
      await store.append([{ event_type: 'type-3', payload: { context: 77 } }])
      await store.close()
      store = closing(await openAt(shared))
    }
  })
})
