// How the addon lives in a Node.js process.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

import { describe, expect, test, vi } from 'vitest'

import * as esm from '../index.js'
import { collect, countTurns, event, having, lasting, stores } from './stores.mjs'

const names = ['FactstrMemoryStore', 'FactstrSqliteStore', 'FactstrPostgresStore', 'FactstrError']
const program = fileURLToPath(new URL('processes/run.mjs', import.meta.url))

function runs(name, place) {
  return output(['--expose-gc', program, name, place])
}

/** What a process of Node.js says, and how it ends. */
async function output(args) {
  const child = spawn(process.execPath, args)
  const [said, errors, [code, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit')
  ])
  return { output: said.trim().split('\n'), errors, code: signal ?? code }
}

test('import and require give the same classes', () => {
  const cjs = createRequire(import.meta.url)('../index.js')
  for (const name of names) {
    expect(esm[name]).toBe(cjs[name])
  }
})

describe.each(lasting)('a process with a $name store', ({ place }) => {
  test('ends by itself, after what is in flight', async () => {
    expect(await runs('unclosed', place())).toEqual({ output: ['last 2'], errors: '', code: 0 })
  })

  test('ends by itself, after appends that waited for one another', async () => {
    expect(await runs('large', place())).toEqual({ output: ['last 6'], errors: '', code: 0 })
  })

  test('process.exit may come at any time', async () => {
    expect(await runs('exit', place())).toMatchObject({ errors: '', code: 7 })
  })

  test('stores may be forgotten at any time', async () => {
    expect(await runs('garbage', place())).toEqual({ output: ['collected'], errors: '', code: 0 })
  })

  test('worker threads end by themselves and may be terminated', async () => {
    expect(await runs('workers', place())).toEqual({
      output: ['last 2', 'polite 0', 'whole'],
      errors: '',
      code: 0
    })
  })
})

test.each(lasting)(
  'the event loop turns between answers that come together: $name',
  async ({ create }) => {
    const store = create()
    await store.append([event('first', {})])
    const turns = countTurns()
    const answered = Array.from({ length: 48 }, async (_, n) => {
      await store.append([event('together', { n })])
      // Who is answered has something to do.
      const until = performance.now() + 2
      while (performance.now() < until);
      return turns()
    })
    const inTurns = new Set(await Promise.all(answered))
    expect(inTurns.size).toBeGreaterThan(16)
    await store.close()
  }
)

describe.each(stores)('the $name store', ({ create }) => {
  test('lets the event loop turn while one call follows the other', async () => {
    const store = create()
    const calls = [
      () => store.append([event('called', { at: 1 })]),
      () => store.query(having({ at: 1 }))
    ]
    for (const call of calls) {
      const turn = new AbortController()
      setImmediate(() => turn.abort())
      let count = 0
      while (!turn.signal.aborted && ++count < 50_000) await call()
      expect(turn.signal.aborted).toBe(true)
    }
  })

  test.each([
    ['appends', 1024, 8, (store, n) => store.append([event('asked', { n })])],
    ['short queries', 3, 2000, (store) => store.query(having({ at: 1 }))]
  ])('lets no %s of callers in loops overtake those that wait', async (_, callers, rounds, ask) => {
    const store = create()
    await store.append([event('first', { at: 1 })])
    let asked = 0
    let answered = 0
    let overtaken = 0
    const caller = async () => {
      for (let round = 0; round < rounds; round++) {
        const n = asked++
        await ask(store, n)
        overtaken = Math.max(overtaken, answered++ - n)
      }
    }
    await Promise.all(Array.from({ length: callers }, caller))
    expect(overtaken).toBeLessThan(500)
    await store.close()
  })

  test('works while an application has its timers faked', async () => {
    const store = create()
    await store.append([event('before', {})])
    vi.useFakeTimers({
      toFake: ['queueMicrotask', 'setImmediate', 'performance', 'Date']
    })
    try {
      const told = []
      const stream = await store.streamAll((batch) => void told.push(...batch))
      const batch = Array.from({ length: 500 }, (_, n) =>
        event('faked', { n, text: 'x'.repeat(900) })
      )
      await Promise.all(Array.from({ length: 20 }, () => store.append(batch)))
      const { event_records: records } = await store.query(having({ n: 7 }))
      expect(records).toHaveLength(20)
      expect(await collect(store.read())).toHaveLength(10_001)
      await stream.unsubscribe()
      await store.close()
    } finally {
      vi.useRealTimers()
    }
  })

  test('hands out a large result in turns of the event loop', async () => {
    const store = create()
    const payload = { text: 'x'.repeat(1000) }
    const batch = Array.from({ length: 1000 }, () => event('large', payload))
    for (let n = 0; n < 20; n++) await store.append(batch)
    const turns = countTurns()
    const { event_records: records } = await store.query()
    expect(records).toHaveLength(20_000)
    // 20 MB come as pages of about 120 KiB, and the loop turns between them.
    expect(turns()).toBeGreaterThan(10)
  })

  test('hands out many results in turns of the event loop', async () => {
    const store = create()
    const batch = Array.from({ length: 1000 }, () => event('many', 'x'.repeat(300)))
    for (let n = 0; n < 4; n++) await store.append(batch)
    const turns = countTurns()
    const reads = Array.from({ length: 12 }, () => collect(store.read()))
    for (const records of await Promise.all(reads)) expect(records).toHaveLength(4000)
    // Together they are 17 MB.
    expect(turns()).toBeGreaterThan(8)
  })
})

test.each(stores)('numbers keep their text and their value: $name', async ({ place }) => {
  const flags = JSON.rawJSON ? [] : ['--harmony-json-parse-with-source']
  const script = fileURLToPath(new URL('processes/raw-numbers.mjs', import.meta.url))
  const { output: lines, errors } = await output([...flags, script, place()])
  expect(errors).toBe('')
  const found = Object.values(JSON.parse(lines[0]))
  // Found by its text and by its value; a missed context conflicts, the right one does not.
  expect(found).toEqual(found.map(() => [1, 1, true, true]))
  expect(found).toHaveLength(5)
})

test('the memory store answers in the order of the calls, at once or with the next turn', async () => {
  const store = new esm.FactstrMemoryStore()
  const settled = []
  const calls = Array.from({ length: 150_000 }, (_, call) => call)
  await Promise.all(
    calls.map((call) => store.append([event('called', { call })]).then(() => settled.push(call)))
  )
  expect(settled).toEqual(calls)
  await store.close()
})

test('stores that share the turns of the event loop all get on', async () => {
  const [busy, other] = [new esm.FactstrMemoryStore(), lasting[0].create()]
  let [left, appended] = [60_000, 0]
  const isOver = () => left <= 0
  const many = async () => {
    while (left-- > 0) await busy.append([event('busy', {})])
  }
  const few = async () => {
    while (!isOver()) {
      await other.append([event('other', {})])
      appended++
    }
  }
  await Promise.all([...Array.from({ length: 1000 }, many), ...Array.from({ length: 64 }, few)])
  expect(appended).toBeGreaterThan(300)
  await busy.close()
  await other.close()
})

test('a short query gets its turn beside others that fill each of them', async () => {
  expect(await runs('turns', lasting[0].place())).toEqual({
    output: ['asked often'],
    errors: '',
    code: 0
  })
})
