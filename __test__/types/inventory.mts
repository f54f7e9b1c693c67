// Compiled, never run: each `@ts-expect-error` fails the compilation if there is no error.

import {
  FactstrError,
  FactstrMemoryStore,
  FactstrSqliteStore,
  type AnyEvent,
  type AppendIfResult,
  type AppendResult,
  type DurableStreamInfo,
  type DurableStreamOptions,
  type EventQuery,
  type EventRecord,
  type EventStore,
  type EventStreamSubscription,
  type FactstrErrorCode,
  type NewEvent,
  type QueryResult,
  type StreamEnd,
  type StreamHandler,
  type StreamProgress
} from '../../index.js'

type Inventory =
  | NewEvent<'item-reserved', { item_id: string; person: string }>
  | NewEvent<'item-returned', { item_id: string }>
  | NewEvent<'stock-counted', number>

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
declare function same<A, B>(...differ: Same<A, B> extends true ? [] : ['the types differ']): void

type Reserved = EventRecord<'item-reserved', { item_id: string; person: string }>
type Returned = EventRecord<'item-returned', { item_id: string }>
type Counted = EventRecord<'stock-counted', number>

const store: EventStore<Inventory> = new FactstrMemoryStore()
const onDisk: EventStore<Inventory> = new FactstrSqliteStore('inventory.db', {
  durability: 'normal',
  busyTimeoutMs: 100,
  readOnly: false
})
const opened: FactstrSqliteStore<Inventory> = await FactstrSqliteStore.open('inventory.db')
for (const each of [store, onDisk, opened]) await each.close()

const reserved = await store.query({
  filters: [{ event_types: ['item-reserved'], payload_predicates: [{ item_id: 'camera-1' }] }]
})
same<(typeof reserved)['event_records'][number], Reserved>()
const person: string | undefined = reserved.event_records[0]?.payload.person
const version: bigint | null = reserved.current_context_version

const either = await store.query(
  {
    filters: [{ event_types: ['item-reserved'] }, { event_types: ['stock-counted'] }],
    min_sequence_number: 3
  },
  { limit: 10 }
)
same<(typeof either)['event_records'][number], Reserved | Counted>()

// One payload for several types, types by a template, and types that are not known at all.
type Shared = NewEvent<'opened' | 'closed', { door: number }> | NewEvent<`item-${string}`, string>
declare const shared: EventStore<Shared>
const openings = await shared.query({ filters: [{ event_types: ['opened'] }] })
same<(typeof openings)['event_records'][number], EventRecord<'opened', { door: number }>>()
const lent = await shared.query({ filters: [{ event_types: ['item-lent'] }] })
same<(typeof lent)['event_records'][number], EventRecord<'item-lent', string>>()
declare const anyStore: EventStore
const any = await anyStore.query({ filters: [{ event_types: ['a'] }] })
same<(typeof any)['event_records'][number], EventRecord<'a', unknown>>()

const unfiltered = await store.query()
same<typeof unfiltered, QueryResult<Reserved | Returned | Counted>>()
const emptyFilters = await store.query({ filters: [] })
same<(typeof emptyFilters)['event_records'][number], Reserved | Returned | Counted>()
const byPayload = await store.query({ filters: [{ payload_predicates: [{ item_id: 'a' }] }] })
same<(typeof byPayload)['event_records'][number], Reserved | Returned | Counted>()
const nullTypes = await store.query({ filters: [{ event_types: null }] })
same<(typeof nullTypes)['event_records'][number], Reserved | Returned | Counted>()

const anyQuery: EventQuery<Inventory> = { filters: null, min_sequence_number: 7n }
const notLiteral = await store.query(anyQuery)
same<(typeof notLiteral)['event_records'][number], Reserved | Returned | Counted>()

const appended: AppendResult = await store.append([
  { event_type: 'item-returned', payload: { item_id: 'camera-1' } },
  { event_type: 'stock-counted', payload: 3 }
])
const outcome: AppendIfResult = await store.appendIf(
  [{ event_type: 'item-reserved', payload: { item_id: 'camera-1', person: 'Ada' } }],
  { filters: [{ event_types: ['item-reserved', 'item-returned'] }] },
  version
)
if (outcome.conflict === null) {
  same<typeof outcome.append_result, AppendResult>()
} else {
  const actual: bigint | null = outcome.conflict.actual_context_version
  same<typeof outcome.append_result, null>()
  void actual
}

// @ts-expect-error an event type that does not exist
await store.append([{ event_type: 'item-stolen', payload: { item_id: 'camera-1' } }])
// @ts-expect-error the payload of another event type
await store.append([{ event_type: 'item-reserved', payload: { item_id: 'camera-1' } }])
// @ts-expect-error an unknown member
await store.append([{ event_type: 'stock-counted', payload: 1, metadata: {} }])
// @ts-expect-error an event type that does not exist
await store.query({ filters: [{ event_types: ['item-stolen'] }] })
// @ts-expect-error a misspelt member
await store.query({ filters: [{ event_type: ['item-reserved'] }] })
// @ts-expect-error a misspelt option
await store.query({}, { limt: 1 })
// @ts-expect-error an event type that does not exist
await store.appendIf([], { filters: [{ event_types: ['item-stolen'] }] }, null)
// @ts-expect-error a query is needed
await store.appendIf([{ event_type: 'stock-counted', payload: 1 }])
// @ts-expect-error a version is no string
await store.appendIf([{ event_type: 'stock-counted', payload: 1 }], {}, '1')
// @ts-expect-error an unknown durability
void new FactstrSqliteStore('inventory.db', { durability: 'maybe' })

for await (const record of store.read(
  { filters: [{ event_types: ['item-returned'] }] },
  { after: 1n, before: 9, limit: 5, backwards: true, pageSize: 10, signal: AbortSignal.abort() }
)) {
  same<typeof record, Returned>()
}
const iterable: AsyncIterable<Reserved | Returned | Counted> = store.read()

const live: EventStreamSubscription = await store.streamAll((records) => {
  same<(typeof records)[number], Reserved | Returned | Counted>()
})
await store.streamTo({ filters: [{ event_types: ['item-reserved'] }] }, async (records) => {
  same<(typeof records)[number], Reserved>()
})
await store.streamTo(
  {
    filters: [{ event_types: ['item-reserved'] }, { event_types: ['stock-counted'] }]
  },
  (records) => {
    same<(typeof records)[number], Reserved | Counted>()
    return records.length > 0
  },
  {
    signal: AbortSignal.timeout(1),
    onError(error, failure) {
      same<typeof error, FactstrError>()
      same<(typeof failure)['event_records'][number], Reserved | Counted>()
      same<typeof failure.next, 'skip' | 'retry' | 'stop'>()
      same<typeof failure.retry_delay_ms, number | null>()
    }
  }
)
await store.streamTo({ filters: [{ payload_predicates: [1] }] }, (records) => {
  same<(typeof records)[number], Reserved | Returned | Counted>()
})
await store.streamTo(anyQuery, async (records) => {
  same<(typeof records)[number], Reserved | Returned | Counted>()
  return true
})
const durable = await store.streamAllDurable(
  { name: 'everything' },
  (records) => {
    same<(typeof records)[number], Reserved | Returned | Counted>()
  },
  {
    signal: null,
    retry: { attempts: Infinity, initialDelayMs: 10, maxDelayMs: 1000 },
    ifActive: 'wait',
    maxEventsPerCall: 500,
    onProgress(progress) {
      same<typeof progress, StreamProgress>()
    }
  }
)
await onDisk.streamToDurable(
  { name: 'returns' },
  { filters: [{ event_types: ['item-returned'] }] },
  async (records) => {
    same<(typeof records)[number], Returned>()
  },
  { retry: { attempts: 3 } }
)
const general: StreamHandler = async ([record]) => record?.payload !== null
await store.streamAll(general)
await store.streamTo({ filters: [{ event_types: ['stock-counted'] }] }, general)
const durableOptions: DurableStreamOptions = { ifActive: 'reject' }
await store.streamAllDurable({ name: 'general' }, general, durableOptions)

const position: bigint = durable.position
same<Awaited<typeof live.closed>, StreamEnd>()
const end = await live.closed
if (end.reason === 'handler-failed' || end.reason === 'backend-failed') {
  same<typeof end.error, FactstrError>()
} else {
  same<typeof end.reason, 'unsubscribed' | 'store-closed'>()
}
{
  using scopedStream = durable.unref().ref()
  await scopedStream.unsubscribe()
}
const listed: DurableStreamInfo[] = await store.listDurableStreams()
await store.resetDurableStream({ name: 'returns' })
await store.resetDurableStream({ name: 'returns' }, 10n)
await store.deleteDurableStream({ name: 'returns' })

// @ts-expect-error an event type that does not exist
await store.streamTo({ filters: [{ event_types: ['item-stolen'] }] }, () => {})
await store.streamToDurable(
  { name: 'a' },
  // @ts-expect-error a misspelt member
  { filters: [{ event_type: ['item-reserved'] }] },
  () => {}
)
// @ts-expect-error a handler is needed
await store.streamAll()
// @ts-expect-error a handler is a function
await store.streamAll({ handle() {} })
// @ts-expect-error what a handler returns is nothing or a boolean
await store.streamAll((records) => records.length)
// @ts-expect-error the handler of other events
await store.streamAll((records: Counted[]) => records.length > 0)
// @ts-expect-error a live stream has no retry
await store.streamAll(() => {}, { retry: { attempts: 3 } })
// @ts-expect-error a durable stream has a name
await store.streamAllDurable('everything', () => {})
// @ts-expect-error a misspelt option
await store.streamAllDurable({ name: 'a' }, () => {}, { retry: { attempt: 3 } })
// @ts-expect-error neither of the two
await store.streamAllDurable({ name: 'a' }, () => {}, { ifActive: 'steal' })
// @ts-expect-error a name is a string
await store.deleteDurableStream({ name: 7 })

const untyped: EventStore = new FactstrMemoryStore()
await untyped.append([{ event_type: 'anything', payload: { at: new Date() } }])
await untyped.streamTo({ filters: [{ event_types: ['anything'] }] }, (records) => {
  same<(typeof records)[number], EventRecord<'anything', unknown>>()
})
await untyped.streamAll((records) => {
  same<(typeof records)[number], EventRecord<string, unknown>>()
})
const found = await untyped.query({ filters: [{ event_types: ['anything'] }] })
same<(typeof found)['event_records'][number], EventRecord<'anything', unknown>>()
const event: AnyEvent = { event_type: 'anything', payload: null }

{
  await using scoped = new FactstrMemoryStore<Inventory>()
  const head: bigint | null = await scoped.headSequenceNumber()
  void head
}

try {
  await store.close()
} catch (error) {
  if (error instanceof FactstrError) {
    const code: FactstrErrorCode = error.code
    // @ts-expect-error a code that does not exist
    const wrong: 'NoSuchCode' = error.code
    void [code, wrong]
  }
}

void [person, appended, iterable, event, position, listed]
