// Streams of several processes on one store, and processes that are killed.

import { readFileSync } from 'node:fs'

import { describe, expect, test } from 'vitest'

import { openAt } from '../processes/place.mjs'
import { ended, message, start } from '../processes/processes.mjs'
import { closing, collect, lasting, numbersOf, temporaryFolder } from '../stores.mjs'
import { appendBatches, failure, recorder, until, untilAllToldOf, upTo } from './streams.mjs'

/** The calls that a process of `stream.mjs` has noted; the last line may be cut by a kill. */
function notedCalls(path) {
  const lines = readFileSync(path, { encoding: 'utf8', flag: 'a+' }).split('\n').slice(0, -1)
  return lines.map((line) => line.split(' ').map(Number))
}

/** The newest number that a process has handled. */
function follow(child) {
  const state = { handled: 0, isRegistered: false, ended: undefined }
  child.on('message', ({ handled, registered, ended: reason }) => {
    if (reason !== undefined) state.ended = reason
    if (handled !== undefined) state.handled = handled
    if (registered) state.isRegistered = true
  })
  return state
}

/** Tells a process of `holder.mjs` what to do. */
function commander(child) {
  const waiting = new Map()
  let last = 0
  child.on('message', ([id, answer]) => waiting.get(id)?.(answer))
  return (command, argument) =>
    new Promise((resolve) => {
      waiting.set(++last, resolve)
      child.send([last, command, argument])
    })
}

describe.each(lasting)('processes on one $name store', ({ place }) => {
  test.each([1, 50])(
    'a killed holder of a durable stream is replaced without a gap, %i events per call',
    async (most) => {
      const folder = temporaryFolder()
      const shared = place()
      const store = closing(await openAt(shared))
      const writing = new AbortController()
      const writer = (async () => {
        for (let n = 0; !writing.signal.aborted; n++) {
          await appendBatches(store, 1 + (n % 3))
          await new Promise((resolve) => {
            setTimeout(resolve, 2)
          })
        }
      })()

      const launch = (round) => {
        const notes = `${folder}/notes-${round}`
        const child = start('stream.mjs', shared, 'model', notes, most)
        return { notes, child, state: follow(child) }
      }
      const rounds = []
      let next = launch(0)
      for (let round = 1; round <= 4; round++) {
        const holder = next
        rounds.push(holder)
        // Live or still replaying: the kill comes in the middle.
        const enough = holder.state.handled + 20 * round
        await until(() => holder.state.handled > enough)
        next = launch(round)
        holder.child.kill('SIGKILL')
        await ended(holder.child)
      }
      rounds.push(next)
      await until(() => next.state.isRegistered)
      writing.abort()
      await writer
      const head = Number(await store.headSequenceNumber())
      await until(() => next.state.handled === head)
      next.child.send('stop')
      expect(await ended(next.child)).toBe(0)

      // Each holder starts after what the one before had stored: nothing is left out, and only the
      // newest is repeated.
      const batches = new Map()
      for (const { sequence_number: number, payload } of await collect(store.read())) {
        if (payload.n === 0) batches.set(Number(number), payload.size)
      }
      let last = 0
      let repeated = 0
      for (const { notes } of rounds) {
        const numbers = notedCalls(notes).flat()
        expect(numbers).toEqual(upTo(numbers.length).map((n) => n + numbers[0] - 1))
        expect(numbers[0]).toBeLessThanOrEqual(last + 1)
        // No batch is handled in part.
        expect(batches.has(numbers[0])).toBe(true)
        repeated += last + 1 - numbers[0]
        last = Math.max(last, numbers.at(-1))
      }
      expect(last).toBe(head)
      expect(repeated).toBeLessThan(head)
      const [stream] = await store.listDurableStreams()
      expect(stream).toMatchObject({ position: BigInt(head), active: false })

      // After an orderly end nothing is repeated.
      const { calls, handle } = recorder()
      await store.streamAllDurable({ name: 'model' }, handle)
      expect(calls).toEqual([])
    }
  )

  test('writers that are killed leave no gap in the streams of others', async () => {
    const shared = place()
    const store = closing(await openAt(shared))
    const live = recorder()
    const durable = recorder(async () => {})
    await store.streamAll(live.handle)
    await store.streamAllDurable({ name: 'model' }, durable.handle)
    for (let round = 0; round < 5; round++) {
      const writers = ['a', 'b'].map((each) => start('write.mjs', shared, `${each}-${round}`))
      const acknowledged = writers.map((child) => {
        const state = { count: 0 }
        child.on('message', () => {
          state.count++
        })
        return state
      })
      await until(() => acknowledged.every(({ count }) => count > 20 + 20 * round))
      for (const child of writers) {
        child.kill('SIGKILL')
        await ended(child)
      }
    }
    const { records, calls } = await untilAllToldOf(
      store,
      () => live.calls,
      () => durable.calls
    )
    const expected = []
    for (let at = 0; at < records.length; at += records[at].payload.size) {
      expected.push(numbersOf(records.slice(at, at + records[at].payload.size)))
    }
    expect(calls).toEqual([expected, expected])
  })

  test('one durable name runs once over many processes, and passes from one to the next', async () => {
    const folder = temporaryFolder()
    const shared = place()
    const store = closing(await openAt(shared))
    const children = upTo(4).map((n) => {
      const notes = `${folder}/notes-${n}`
      const child = start('stream.mjs', shared, 'model', notes, 1)
      return { notes, child, state: follow(child) }
    })
    const order = []
    let total = 0
    while (order.length < children.length) {
      const free = children.filter((each) => !order.includes(each))
      await until(() => free.some(({ state }) => state.isRegistered))
      const holders = free.filter(({ state }) => state.isRegistered)
      expect(holders).toHaveLength(1)
      const [holder] = holders
      await Promise.all(upTo(30).map((n) => appendBatches(store, 1 + (n % 2))))
      total += 45
      await until(() => holder.state.handled === total)
      order.push(holder)
      holder.child.send('stop')
      expect(await ended(holder.child)).toBe(0)
    }
    // An orderly hand-over repeats nothing.
    expect(order.flatMap(({ notes }) => notedCalls(notes).flat())).toEqual(upTo(total))
  })

  test('a holder that was suspended too long has lost its name, and moves no cursor any more', async () => {
    const folder = temporaryFolder()
    const shared = place()
    const store = closing(await openAt(shared))
    const [suspended, heir] = ['suspended', 'heir'].map((name) => {
      const child = start('stream.mjs', shared, 'model', `${folder}/${name}`, 1)
      return { notes: `${folder}/${name}`, child, state: follow(child) }
    })
    await until(() => suspended.state.isRegistered || heir.state.isRegistered)
    const [holder, other] = suspended.state.isRegistered ? [suspended, heir] : [heir, suspended]
    await appendBatches(store, 1, 1)
    await until(() => holder.state.handled === 2)

    holder.child.kill('SIGSTOP')
    await appendBatches(store, 1, 1)
    await until(() => other.state.handled === 4)
    holder.child.kill('SIGCONT')
    await until(() => holder.state.ended !== undefined)
    expect(holder.state.ended).toBe('backend-failed')
    await appendBatches(store, 1)
    await until(() => other.state.handled === 5)
    for (const { child } of [holder, other]) {
      child.send('stop')
      expect(await ended(child)).toBe(0)
    }
    const [stream] = await store.listDurableStreams()
    expect(stream).toMatchObject({ position: 5n, active: false })
    expect(notedCalls(other.notes).flat().slice(-3)).toEqual([3, 4, 5])
  })

  test('a lease that was lost is given back in vain, even if its store has the name again', async () => {
    const shared = place()
    const store = closing(await openAt(shared))
    const child = start('holder.mjs', shared)
    await message(child)
    const tell = commander(child)
    const model = { name: 'model' }
    expect(await tell('register', 'model')).toBe(0)
    await appendBatches(store, 1)
    await until(async () => (await tell('calls', 0)).length === 1)

    // Its call is still running when somebody else has the name, handles the batch and leaves.
    child.kill('SIGSTOP')
    const heir = recorder()
    const subscription = await store.streamAllDurable(model, heir.handle, { ifActive: 'wait' })
    expect(heir.calls).toEqual([[1]])
    child.kill('SIGCONT')
    await subscription.unsubscribe()
    expect(await subscription.closed).toEqual({ reason: 'unsubscribed' })

    expect(await tell('register', 'model')).toBe(1)
    await tell('settle')
    expect(await tell('closed', 0)).toBe('backend-failed')
    // The second lease is as good as any.
    expect(await tell('register', 'model')).toBe('DurableStreamActive')
    const refused = await failure(store.streamAllDurable(model, heir.handle))
    expect(refused.code).toBe('DurableStreamActive')
    await appendBatches(store, 1)
    await until(async () => (await tell('calls', 1)).length === 1)
    expect(await tell('calls', 0)).toEqual([[1]])
    expect(await tell('calls', 1)).toEqual([[2]])
    void tell('end')
    expect(await ended(child)).toBe(0)
    const [stream] = await store.listDurableStreams()
    expect(stream).toMatchObject({ position: 2n, active: false })
  })
})
