// The example application, over HTTP as a browser would use it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import { expect, onTestFinished, test } from 'vitest'

import { temporaryFolder } from './stores.mjs'
import { until } from './streams/streams.mjs'

const program = fileURLToPath(new URL('../examples/reservations/server.mjs', import.meta.url))

async function serve(folder) {
  const child = spawn(process.execPath, [program, folder, '0'], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  const lines = createInterface({ input: child.stdout })
  const [url] = await once(lines, 'line')
  const post = async (path, body) => {
    const response = await fetch(url + path, { method: 'POST', body: JSON.stringify(body) })
    return { status: response.status, ...(await response.json()) }
  }
  return {
    reserve: (item, person) => post('/reserve', { item, person }),
    giveBack: (item) => post('/return', { item }),
    items: async () => (await fetch(`${url}/items`)).json(),
    page: async () => (await fetch(url)).text(),
    facts: (last) => listen(`${url}/facts`, last),
    async end(signal) {
      child.kill(signal)
      const [code] = await once(child, 'exit')
      return code
    }
  }
}

/** A browser's EventSource: the facts that have come, and the end of the connection. */
async function listen(url, last) {
  const response = await fetch(url, {
    headers: last === undefined ? {} : { 'last-event-id': `${last}` }
  })
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  const facts = []
  const ended = (async () => {
    let text = ''
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      text += chunk
      const events = text.split('\n\n')
      text = events.pop()
      for (const each of events) {
        const [id, data] = each.split('\n').map((line) => line.slice(line.indexOf(':') + 2))
        const fact = JSON.parse(data)
        expect(fact.number).toBe(Number(id))
        facts.push(fact)
      }
    }
  })()
  return { facts, ended }
}

test('reservations: commands, read model and browsers agree, over restarts', async () => {
  const folder = temporaryFolder()
  let app = await serve(folder)
  expect(await app.page()).toContain('<h1>Reservations</h1>')
  const browsers = [await app.facts(), await app.facts()]

  const racers = ['Ada', 'Bob', 'Cleo', 'Dan'].map((person) => app.reserve('camera-1', person))
  const outcomes = await Promise.all(racers)
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual([200, 409, 409, 409])
  expect((await app.reserve('tripod-1', 'Eve')).status).toBe(200)
  expect((await app.giveBack('camera-1')).status).toBe(200)
  expect((await app.giveBack('camera-1')).refusal).toBe('camera-1 is not lent out')
  expect((await app.reserve('', 'Eve')).status).toBe(400)

  for (const { facts } of browsers) {
    await until(() => facts.length === 3)
    expect(facts.map(({ number }) => number)).toEqual([1, 2, 3])
    expect(facts.map(({ payload }) => payload.item_id)).toEqual([
      'camera-1',
      'tripod-1',
      'camera-1'
    ])
  }
  const model = [
    { id: 'camera-1', holder: null, lent: 1 },
    { id: 'tripod-1', holder: 'Eve', lent: 1 }
  ]
  await until(async () => (await app.items()).every(({ lent }) => lent === 1))
  await until(async () => (await app.items())[0]?.holder === null)
  expect(await app.items()).toEqual(model)

  // An orderly end closes the browsers' connections.
  expect(await app.end('SIGTERM')).toBe(0)
  for (const { ended } of browsers) await ended

  // The model is there at once, and a browser goes on where it was.
  app = await serve(folder)
  expect(await app.items()).toEqual(model)
  const again = await app.facts(1)
  await app.reserve('camera-1', 'Bob')
  await until(() => again.facts.length === 3)
  expect(again.facts.map(({ number }) => number)).toEqual([2, 3, 4])
  await until(async () => (await app.items())[0].lent === 2)
  await app.end('SIGKILL')
  await again.ended.catch(() => {})

  // A lost model is made anew.
  rmSync(`${folder}/items.json`)
  app = await serve(folder)
  expect(await app.items()).toEqual([
    { id: 'camera-1', holder: 'Bob', lent: 2 },
    { id: 'tripod-1', holder: 'Eve', lent: 1 }
  ])
  expect(await app.end('SIGINT')).toBe(0)
})
