// A small real application: equipment reservations over HTTP, on Node's own server.
//
//   node examples/reservations/server.mjs [folder] [port]

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'

import { FactstrSqliteStore } from '../../index.js'
import { giveBack, reserve } from './commands.mjs'
import { sendFacts } from './facts.mjs'
import { openItems } from './items.mjs'

const [folder = 'reservations-data', port = '8080'] = process.argv.slice(2)
const page = await readFile(new URL('page.html', import.meta.url))
const ending = new AbortController()

const store = await FactstrSqliteStore.open(join(folder, 'facts.db'))
const items = await openItems(store, join(folder, 'items.json'))

const routes = {
  'GET /'(_, response) {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page)
  },
  'GET /items'(_, response) {
    answer(response, 200, items.all)
  },
  'GET /facts'(request, response) {
    return sendFacts(store, request, response, ending.signal)
  },
  async 'POST /reserve'(request, response) {
    const { item, person } = await textsOf(request, 'item', 'person')
    answerCommand(response, await reserve(store, item, person))
  },
  async 'POST /return'(request, response) {
    const { item } = await textsOf(request, 'item')
    answerCommand(response, await giveBack(store, item))
  }
}

class BadRequest extends Error {}

async function textsOf(request, ...names) {
  const body = await json(request).catch(() => {
    throw new BadRequest('the body is no JSON')
  })
  const texts = {}
  for (const name of names) {
    const text = body?.[name]
    if (typeof text !== 'string' || text.trim() === '' || text.length > 100) {
      throw new BadRequest(`${name}: a text of 1 to 100 characters, please`)
    }
    texts[name] = text.trim()
  }
  return texts
}

function answerCommand(response, { number, refusal }) {
  if (refusal === undefined) answer(response, 200, { number })
  else answer(response, 409, { refusal })
}

function answer(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost')
  const route = routes[`${request.method} ${pathname}`]
  try {
    if (route === undefined) answer(response, 404, { refusal: 'there is nothing here' })
    else await route(request, response)
  } catch (error) {
    if (!(error instanceof BadRequest)) console.error(error)
    const status = error instanceof BadRequest ? 400 : 500
    if (!response.headersSent) answer(response, status, { refusal: error.message })
  }
})

server.listen(Number(port))
await once(server, 'listening')
console.log(`http://localhost:${server.address().port}`)

/** Takes no new request, lets browsers go, finishes what runs, stores the cursor. */
async function end() {
  if (ending.signal.aborted) return
  console.log('ending')
  ending.abort()
  server.close()
  await once(server, 'close')
  await store.close()
}
process.on('SIGINT', end)
process.on('SIGTERM', end)
