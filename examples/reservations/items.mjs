// The read model: who has what, and how often it was lent. A durable stream keeps it in a file.

import { readFile, rename, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

const stream = { name: 'items' }
const query = { filters: [{ event_types: ['item-reserved', 'item-returned'] }] }

/** Loads the model, brings it up to date with the log, and keeps it so. */
export async function openItems(store, file) {
  const model = (await load(file)) ?? { position: 0, items: {} }
  // Without the file the model starts from the beginning, whatever the stream's cursor says.
  if (model.position === 0) await forgetCursor(store)

  const subscription = await store.streamToDurable(
    stream,
    query,
    async (records) => {
      for (const record of records) apply(model, record)
      await save(file, model)
    },
    {
      // A process that was killed keeps the name for some seconds; a second one stands by.
      ifActive: 'wait',
      // Replays quickly: one file is written for many facts.
      maxEventsPerCall: 500,
      // A full disk is no reason to give up. What can't be saved is tried again.
      retry: { attempts: Infinity, initialDelayMs: 200, maxDelayMs: 10_000 },
      onError: ({ cause }, { next }) => console.error(`items: ${cause.message} (${next})`)
    }
  )
  void subscription.closed.then(({ reason }) => console.log(`items: ${reason}`))
  return {
    get all() {
      return Object.values(model.items).toSorted((a, b) => a.id.localeCompare(b.id))
    }
  }
}

/**
 * The newest facts may come again after a crash, when the file was written and the cursor was not.
 * The model remembers how far it is, so that a fact counts once.
 */
function apply(model, { sequence_number: number, event_type: type, payload }) {
  if (Number(number) <= model.position) return
  model.position = Number(number)
  const { item_id: id, person } = payload
  model.items[id] ??= { id, holder: null, lent: 0 }
  const item = model.items[id]
  if (type === 'item-reserved') {
    item.holder = person
    item.lent++
  } else {
    item.holder = null
  }
}

async function load(file) {
  try {
    return JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    if (error.code === 'ENOENT') return undefined
    throw error
  }
}

/** The file is the old one or the new one, never half of it. */
async function save(file, model) {
  await writeFile(`${file}.new`, JSON.stringify(model))
  await rename(`${file}.new`, file)
}

async function forgetCursor(store) {
  for (;;) {
    try {
      return await store.resetDurableStream(stream)
    } catch (error) {
      if (error.code === 'DurableStreamNotFound') return
      if (error.code !== 'DurableStreamActive') throw error
      await sleep(500)
    }
  }
}
