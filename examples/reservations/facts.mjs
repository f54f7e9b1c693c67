// Server-sent events: each browser gets the facts it has missed, and then every new one.

import { once } from 'node:events'

/** The facts that a page gets which comes for the first time. */
const RECENT = 20n

/** Answers a request with facts until the browser goes or the server ends. */
export async function sendFacts(store, request, response, serverEnds) {
  const gone = new AbortController()
  response.on('close', () => gone.abort())
  const signal = AbortSignal.any([gone.signal, serverEnds])

  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    connection: 'close'
  })
  // The browser is connected before there is any fact.
  response.flushHeaders()
  let last = await startOf(store, request)

  const send = async (records) => {
    for (const record of records) {
      // What the reading below has sent already is not sent twice.
      if (record.sequence_number <= last || signal.aborted) continue
      last = record.sequence_number
      // A slow browser holds back its own stream; the store keeps what it has not taken.
      if (!response.write(format(record))) await once(response, 'drain', { signal })
    }
  }

  let caughtUp
  const reading = new Promise((resolve) => {
    caughtUp = resolve
  })
  try {
    // Live first, so that nothing is missed between reading and listening. Its first call waits.
    const subscription = await store.streamAll(
      async (records) => {
        await reading
        await send(records)
      },
      { signal, onError: (error) => !signal.aborted && console.error(error) }
    )
    for await (const record of store.read({}, { after: last, signal })) await send([record])
    caughtUp()
    await subscription.closed
  } catch (error) {
    if (!signal.aborted) console.error(error)
  } finally {
    gone.abort()
    caughtUp()
    response.end()
  }
}

/** After which fact the browser wants to go on: it tells when it connects again. */
async function startOf(store, request) {
  const told = request.headers['last-event-id']
  if (/^\d{1,15}$/.test(told ?? '')) return BigInt(told)
  const head = (await store.headSequenceNumber()) ?? 0n
  return head > RECENT ? head - RECENT : 0n
}

function format({ sequence_number: number, occurred_at: at, event_type: type, payload }) {
  return `id: ${number}\ndata: ${JSON.stringify({ number: Number(number), at, type, payload })}\n\n`
}
