/// <reference lib="esnext.disposable" />

/** What an event looks like before its types are known. */
export interface AnyEvent {
  event_type: string
  payload: unknown
}

/** A fact to be stored. */
export interface NewEvent<Type extends string = string, Payload = unknown> {
  /** What kind of fact it is: 1 to 512 bytes of UTF-8. */
  event_type: Type
  /**
   * Any JSON value, stored as `JSON.stringify` writes it: at most 16 MiB of JSON text, at most 100
   * levels deep, without U+0000 and lone surrogates.
   */
  payload: Payload
}

/** A stored fact. */
export interface EventRecord<Type extends string = string, Payload = unknown> {
  /** The position in the store's one log: starts at `1n`, has no gaps, is never reused. */
  sequence_number: bigint
  /**
   * When the batch was committed: RFC 3339, UTC, microseconds (`2026-05-10T08:15:30.123456Z`), by
   * the clock of the machine that wrote it, or of the PostgreSQL server. It never orders anything.
   */
  occurred_at: string
  event_type: Type
  payload: Payload
}

/** A sequence number on its way in: a `bigint`, or a safe non-negative integer. */
export type SequenceNumber = bigint | number

/** One alternative of a query: its event types and its payload predicates are AND-ed. */
export interface EventFilter<Event extends AnyEvent = AnyEvent> {
  /** OR-ed. Absent or `null` is unconstrained, `[]` matches nothing. */
  event_types?: readonly Event['event_type'][] | null
  /**
   * OR-ed. Absent or `null` is unconstrained, `[]` matches nothing.
   *
   * A predicate matches by recursive subset: every member of a predicate object is present in the
   * payload and matches, every element of a predicate array matches some element of the payload's
   * array, scalars are equal (numbers by exact value, strings by code point).
   */
  payload_predicates?: readonly unknown[] | null
}

/** Selects the facts that matter to a decision: its context. */
export interface EventQuery<Event extends AnyEvent = AnyEvent> {
  /** OR-ed. Absent, `null` and `[]` match every event. */
  filters?: readonly EventFilter<Event>[] | null
  /** An exclusive read cursor: only rows after it are returned. The context is not affected. */
  min_sequence_number?: SequenceNumber | null
}

/** The records that a query of literal event types can return. */
export type MatchingRecord<Event extends AnyEvent, Query> = Query extends {
  readonly filters: infer Filters
}
  ? Filters extends readonly (infer Filter)[]
    ? [Filter] extends [never]
      ? RecordOf<Event>
      : RecordOfFilter<Event, Filter>
    : RecordOf<Event>
  : RecordOf<Event>

type RecordOfFilter<Event extends AnyEvent, Filter> = Filter extends {
  readonly event_types: infer Types
}
  ? Types extends readonly (infer Type)[]
    ? RecordOf<Event, Type>
    : RecordOf<Event>
  : RecordOf<Event>

type RecordOf<Event extends AnyEvent, Type = string> = Event extends AnyEvent
  ? RecordsOf<CommonType<Event['event_type'], Type>, Event['payload']>
  : never

type RecordsOf<Type, Payload> = Type extends string ? EventRecord<Type, Payload> : never

/** The types that both an event and a query name: either may be the wider one (`string`, templates). */
type CommonType<EventType, Type> = EventType extends unknown
  ? Type extends unknown
    ? EventType extends Type
      ? EventType
      : Type extends EventType
        ? Type
        : never
    : never
  : never

/** What a query found, rows and context version from one snapshot. */
export interface QueryResult<Record = EventRecord> {
  /** The matching events after the query's cursor, in ascending order. */
  event_records: Record[]
  /** The last returned row's sequence number. */
  last_returned_sequence_number: bigint | null
  /** The newest match of the whole context, whatever the cursor and the limit. */
  current_context_version: bigint | null
}

/** The consecutive range that one append committed. */
export interface AppendResult {
  first_sequence_number: bigint
  last_sequence_number: bigint
  committed_count: bigint
}

/** The context is not what the caller had read: an answer, not an error. */
export interface ConditionalAppendConflict {
  expected_context_version: bigint | null
  actual_context_version: bigint | null
}

export type AppendIfResult =
  | { append_result: AppendResult; conflict: null }
  | { append_result: null; conflict: ConditionalAppendConflict }

export interface QueryOptions {
  /** The most rows to return, a positive integer: the first ones after the cursor. */
  limit?: number | null
}

export interface ReadOptions {
  /** Exclusive lower bound; the query's cursor by another name, so only one may be given. */
  after?: SequenceNumber | null
  /** Exclusive upper bound. */
  before?: SequenceNumber | null
  /** The most events to read, a positive integer. */
  limit?: number | null
  /** Starts at the newest event. Default `false`. */
  backwards?: boolean | null
  /** Ends the read: the iterator rejects with the signal's reason. */
  signal?: AbortSignal | null
  /** The most events fetched at once, a positive integer. Default 1000. */
  pageSize?: number | null
}

/** The name under which a durable stream stores its cursor. */
export interface DurableStream {
  /** 1 to 255 bytes of UTF-8. */
  name: string
}

/**
 * Takes one committed batch: all of its events, or the matching ones in their order. With
 * `maxEventsPerCall` it may take several batches, one after the other.
 *
 * The next call waits for what it returns. `false`, a throw and a rejection mean failure; everything
 * else means success.
 */
export type StreamHandler<Record = EventRecord> = (
  event_records: Record[]
) => void | boolean | PromiseLike<void | boolean>

/** What happened when a handler failed, and what comes next. */
export interface StreamFailure<Record = EventRecord> {
  /** What the handler was called with, as it was committed. Empty if the store failed. */
  event_records: Record[]
  /** Which try of these records it was: starts at 1. 0 if the store failed. */
  attempt: number
  /**
   * `'skip'`: a live stream goes on with the next batch. `'retry'`: a durable stream tries the same
   * records again. `'stop'`: the stream ends, and a durable one's cursor stays before them.
   */
  next: 'skip' | 'retry' | 'stop'
  /** How long until the next try, in milliseconds; `null` if there is none. */
  retry_delay_ms: number | null
}

export interface LiveStreamOptions<Record = EventRecord> {
  /** Unsubscribes. If it aborts before the registration has resolved, that rejects with its reason. */
  signal?: AbortSignal | null
  /**
   * Is told of every failure: a {@link FactstrError} `StreamHandlerFailed` whose `cause` is what the
   * handler threw, or the store's own error. A `StreamHandlerFailed` without a cause tells of a call
   * that was given up, see {@link EventStreamSubscription.unsubscribe}; should it fail later, that
   * is told as well. Without this function a process warning is emitted.
   */
  onError?: ((error: FactstrError, failure: StreamFailure<Record>) => void) | null
}

/** How often a durable stream tries records whose handler has failed. */
export interface StreamRetry {
  /** Tries in all, a positive integer or `Infinity`. Default 1. */
  attempts?: number | null
  /** The wait before the second try, in milliseconds; it doubles with each further try. Default 100. */
  initialDelayMs?: number | null
  /** The longest wait, in milliseconds. Default 30000. */
  maxDelayMs?: number | null
}

/** How far a durable stream has come. */
export interface StreamProgress {
  /** The last processed sequence number. */
  position: bigint
  /** The store's newest sequence number, as far as the stream knows. */
  head_sequence_number: bigint
}

export interface DurableStreamOptions<Record = EventRecord> extends LiveStreamOptions<Record> {
  /** Default: one try, then the stream stops. */
  retry?: StreamRetry | null
  /**
   * What if the name is running, here or in another process: `'reject'` (default) rejects with
   * `DurableStreamActive`, `'wait'` takes over when the holder stops or dies.
   */
  ifActive?: 'reject' | 'wait' | null
  /**
   * Hands several batches that are there to one call, up to this many events; a batch is never
   * split, so a larger one comes alone. A positive integer. Default: one batch per call.
   */
  maxEventsPerCall?: number | null
  /** Is told how far the stream is: at most every 100 ms while it works, and when it has caught up. */
  onProgress?: ((progress: StreamProgress) => void) | null
}

/** How a stream ended. `error` is there for the two failures. */
export type StreamEnd =
  | { reason: 'unsubscribed' | 'store-closed'; error?: undefined }
  | { reason: 'handler-failed' | 'backend-failed'; error: FactstrError }

/**
 * A running stream. It keeps the process alive until it ends; dropping this object does not end it.
 */
export interface EventStreamSubscription extends Disposable {
  /**
   * Ends the stream: no handler call starts after this returns. The promise resolves when the call
   * that is running has settled and the cursor is stored, so that nothing repeats; awaited inside
   * that very call, it resolves without waiting for it. A call that has not settled after 3 seconds
   * is given up, so that one that never settles holds up nothing: the stream ends without it, and
   * `onError`, else a process warning, tells so. Its records stay ahead of the cursor and may be
   * handled again, by the next registration, while it is still running. If it succeeds later, the
   * cursor moves after all, unless the name was registered or its cursor moved meanwhile, or the
   * store was closed. Idempotent, never rejects.
   */
  unsubscribe(): Promise<void>
  /** Resolves when the stream has ended, and tells why. Never rejects. */
  readonly closed: Promise<StreamEnd>
  /** The last processed sequence number, `0n` before the first. */
  readonly position: bigint
  /** Keeps the process alive while the stream runs: the default. */
  ref(): this
  /** Lets the process exit although the stream runs. */
  unref(): this
  /** Like {@link unsubscribe}, without waiting. */
  [Symbol.dispose](): void
}

/** A durable stream as the store knows it. */
export interface DurableStreamInfo {
  name: string
  /** Its filters, `null` for `streamAllDurable`. */
  query: { filters: EventFilter[] | null }
  /** The stored cursor: the last sequence number that it is done with, `0n` before the first. */
  position: bigint
  /** The store's newest sequence number, `0n` when empty. */
  head_sequence_number: bigint
  /** Whether some store, here or in another process, runs it now. */
  active: boolean
}

/** The names of the ways in which an operation can fail. They never change. */
export type FactstrErrorCode =
  | 'EmptyAppend'
  | 'InvalidEvent'
  | 'InvalidQuery'
  | 'InvalidOptions'
  | 'StoreClosed'
  | 'DurableStreamActive'
  | 'DurableStreamQueryMismatch'
  | 'DurableStreamNotFound'
  | 'StreamHandlerFailed'
  | 'StoreFormatUnsupported'
  | 'BackendFailure'
  | 'OutcomeUnknown'

/** Every failure of a store: its code, and a message that says what was wrong and where. */
export class FactstrError extends Error {
  constructor(code: FactstrErrorCode, message: string, options?: { cause?: unknown })
  readonly name: 'FactstrError'
  readonly code: FactstrErrorCode
}

/**
 * One append-only log of facts. Every store implements it.
 *
 * `Event` is the union of the application's events, for instance
 * `NewEvent<'item-reserved', { item_id: string }> | NewEvent<'item-returned', { item_id: string }>`.
 *
 * Every failure is a rejection with a {@link FactstrError}, never a synchronous throw. Operations
 * issued one after another without awaiting are committed in the order of the calls.
 */
export interface EventStore<Event extends AnyEvent = AnyEvent> extends AsyncDisposable {
  /**
   * Commits all events as one batch with one consecutive range, or none.
   *
   * Rejects with `EmptyAppend`, `InvalidEvent`, `StoreClosed`, `BackendFailure`, `OutcomeUnknown`.
   */
  append(events: readonly Event[]): Promise<AppendResult>

  /**
   * Returns the matching events in ascending order and the context's version.
   *
   * Rejects with `InvalidQuery`, `InvalidOptions`, `StoreClosed`, `BackendFailure`.
   */
  query<const Query extends EventQuery<Event> = {}>(
    query?: Query,
    options?: QueryOptions | null
  ): Promise<QueryResult<MatchingRecord<Event, Query>>>

  /**
   * Appends if and only if the newest match of the query, its cursor ignored, is exactly the
   * expected version (`null` or absent: nothing matches). Otherwise nothing is appended and the
   * result carries the conflict.
   *
   * Rejects with `EmptyAppend`, `InvalidEvent`, `InvalidQuery`, `StoreClosed`, `BackendFailure`,
   * `OutcomeUnknown`.
   */
  appendIf(
    events: readonly Event[],
    query: EventQuery<Event>,
    expectedContextVersion?: SequenceNumber | null
  ): Promise<AppendIfResult>

  /**
   * Reads the matching events one by one in bounded memory. It sees the events up to the head as of
   * its first step, each once and in order, while others append.
   *
   * The iterator rejects with `InvalidQuery`, `InvalidOptions`, `StoreClosed`, `BackendFailure`, or
   * the signal's reason.
   */
  read<const Query extends EventQuery<Event> = {}>(
    query?: Query | null,
    options?: ReadOptions | null
  ): AsyncIterable<MatchingRecord<Event, Query>>

  /** Returns the newest sequence number, `null` when the store is empty. */
  headSequenceNumber(): Promise<bigint | null>

  /**
   * Calls the handler with every batch that is committed after the registration has resolved, by
   * this process or another. A failure of the handler is reported, and the stream goes on.
   *
   * Rejects with `InvalidOptions`, `StoreClosed`, `BackendFailure`, or the signal's reason.
   */
  streamAll(
    handle: StreamHandler<MatchingRecord<Event, {}>>,
    options?: LiveStreamOptions<MatchingRecord<Event, {}>> | null
  ): Promise<EventStreamSubscription>

  /**
   * Like {@link streamAll}, with the matching events of each batch; a batch without any is not
   * delivered. The query's cursor is ignored.
   *
   * Rejects with `InvalidQuery`, `InvalidOptions`, `StoreClosed`, `BackendFailure`, or the signal's
   * reason.
   */
  streamTo<const Query extends EventQuery<Event>>(
    query: Query,
    handle: StreamHandler<MatchingRecord<Event, Query>>,
    options?: LiveStreamOptions<MatchingRecord<Event, Query>> | null
  ): Promise<EventStreamSubscription>

  /**
   * Calls the handler with every batch after the stored cursor of this name, first those that are
   * there, then those to come. The cursor moves when the handler has succeeded, so a crash repeats
   * the newest batches at most and never skips one. Resolves when it has caught up with the head as
   * of the call.
   *
   * Rejects with `StreamHandlerFailed`, `DurableStreamActive`, `DurableStreamQueryMismatch`,
   * `InvalidOptions`, `StoreClosed`, `BackendFailure`, or the signal's reason.
   */
  streamAllDurable(
    stream: DurableStream,
    handle: StreamHandler<MatchingRecord<Event, {}>>,
    options?: DurableStreamOptions<MatchingRecord<Event, {}>> | null
  ): Promise<EventStreamSubscription>

  /**
   * Like {@link streamAllDurable}, with the matching events of each batch; a batch without any is
   * not delivered. The query's cursor is ignored.
   *
   * Rejects like {@link streamAllDurable}, and with `InvalidQuery`.
   */
  streamToDurable<const Query extends EventQuery<Event>>(
    stream: DurableStream,
    query: Query,
    handle: StreamHandler<MatchingRecord<Event, Query>>,
    options?: DurableStreamOptions<MatchingRecord<Event, Query>> | null
  ): Promise<EventStreamSubscription>

  /**
   * Returns the durable streams of this store, by name.
   *
   * Rejects with `StoreClosed`, `BackendFailure`.
   */
  listDurableStreams(): Promise<DurableStreamInfo[]>

  /**
   * Moves the cursor of a stream that does not run. The next registration starts after it.
   *
   * Rejects with `DurableStreamActive`, `DurableStreamNotFound`, `InvalidOptions`, `StoreClosed`,
   * `BackendFailure`.
   *
   * @param after default `0n`: a full replay
   */
  resetDurableStream(stream: DurableStream, after?: SequenceNumber | null): Promise<void>

  /**
   * Forgets a stream that does not run, cursor and query.
   *
   * Rejects like {@link resetDurableStream}.
   */
  deleteDurableStream(stream: DurableStream): Promise<void>

  /**
   * Takes no new work, finishes what is in flight, ends the streams, releases everything. It waits
   * for the handler calls that are running and stores their cursors; awaited inside such a call, it
   * resolves without waiting for that one. Idempotent.
   */
  close(): Promise<void>

  [Symbol.asyncDispose](): Promise<void>
}

declare abstract class Store<Event extends AnyEvent> implements EventStore<Event> {
  append(events: readonly Event[]): Promise<AppendResult>
  query<const Query extends EventQuery<Event> = {}>(
    query?: Query,
    options?: QueryOptions | null
  ): Promise<QueryResult<MatchingRecord<Event, Query>>>
  appendIf(
    events: readonly Event[],
    query: EventQuery<Event>,
    expectedContextVersion?: SequenceNumber | null
  ): Promise<AppendIfResult>
  read<const Query extends EventQuery<Event> = {}>(
    query?: Query | null,
    options?: ReadOptions | null
  ): AsyncIterable<MatchingRecord<Event, Query>>
  headSequenceNumber(): Promise<bigint | null>
  streamAll(
    handle: StreamHandler<MatchingRecord<Event, {}>>,
    options?: LiveStreamOptions<MatchingRecord<Event, {}>> | null
  ): Promise<EventStreamSubscription>
  streamTo<const Query extends EventQuery<Event>>(
    query: Query,
    handle: StreamHandler<MatchingRecord<Event, Query>>,
    options?: LiveStreamOptions<MatchingRecord<Event, Query>> | null
  ): Promise<EventStreamSubscription>
  streamAllDurable(
    stream: DurableStream,
    handle: StreamHandler<MatchingRecord<Event, {}>>,
    options?: DurableStreamOptions<MatchingRecord<Event, {}>> | null
  ): Promise<EventStreamSubscription>
  streamToDurable<const Query extends EventQuery<Event>>(
    stream: DurableStream,
    query: Query,
    handle: StreamHandler<MatchingRecord<Event, Query>>,
    options?: DurableStreamOptions<MatchingRecord<Event, Query>> | null
  ): Promise<EventStreamSubscription>
  listDurableStreams(): Promise<DurableStreamInfo[]>
  resetDurableStream(stream: DurableStream, after?: SequenceNumber | null): Promise<void>
  deleteDurableStream(stream: DurableStream): Promise<void>
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** A store in memory, for tests and examples: the whole contract but durability. */
export class FactstrMemoryStore<Event extends AnyEvent = AnyEvent> extends Store<Event> {
  constructor()
}

export interface SqliteStoreOptions {
  /**
   * `'full'` (default): a resolved append survives a power loss. `'normal'`: the newest commits may
   * be lost on power loss, though never on a crash of the process; the file is never corrupted.
   */
  durability?: 'full' | 'normal' | null
  /** How long to wait for another process's lock, in milliseconds. Default 5000. */
  busyTimeoutMs?: number | null
  /** Opens an existing store for reading only; appends reject. Default `false`. */
  readOnly?: boolean | null
}

/** A store in one SQLite file, shared safely by several processes of one machine. */
export class FactstrSqliteStore<Event extends AnyEvent = AnyEvent> extends Store<Event> {
  /**
   * Describes a store. Neither touches the disk nor throws: the first operation opens the file, and
   * rejects if that fails.
   *
   * @param path the file; it and its parent folders are created when missing
   */
  constructor(path: string, options?: SqliteStoreOptions | null)

  /**
   * Opens the file now.
   *
   * Rejects with `InvalidOptions`, `StoreFormatUnsupported`, `BackendFailure`.
   */
  static open<Event extends AnyEvent = AnyEvent>(
    path: string,
    options?: SqliteStoreOptions | null
  ): Promise<FactstrSqliteStore<Event>>
}

export interface PostgresStoreOptions {
  /**
   * The schema of the store's tables, created when missing; several stores in one database do not see
   * each other. 1 to 63 bytes, not starting with `pg_` and without `$factstr$`. Default `'public'`.
   */
  schema?: string | null
  /**
   * How many connections may read at once. Default 8. The store has more of its own: one that writes,
   * and, while streams run, one for their leases and cursors and one that listens.
   */
  maxConnections?: number | null
  /**
   * How long a connection may take, how long to wait for one that is free, and how long an operation
   * goes on trying while there is none, in milliseconds. Default 10,000; a `connect_timeout` in the URL
   * goes before.
   */
  connectTimeoutMs?: number | null
  /** How long a statement may run until it is cancelled, in milliseconds; 0: no limit. Default 30,000. */
  statementTimeoutMs?: number | null
  /** The name that the server shows for the connections. Default: the URL's, else `'factstr'`. */
  applicationName?: string | null
  /**
   * How often to look for what other stores have committed, in milliseconds, while streams run. Default
   * 100. Where the connection allows it, the server tells of commits at once, and this is only the
   * fallback.
   */
  pollIntervalMs?: number | null
  /** Certificates and keys in PEM, instead of the URL's `sslrootcert`, `sslcert` and `sslkey`. */
  tls?: PostgresTlsOptions | null
}

export interface PostgresTlsOptions {
  /** The certificates to trust. Where the URL has no `sslmode`, they make it `verify-full`. */
  ca?: string | Uint8Array | null
  /** The client's certificate, followed by those between it and the server's root. */
  cert?: string | Uint8Array | null
  /** The client certificate's private key, not encrypted. */
  key?: string | Uint8Array | null
  /** The name that the server's certificate must carry. Default: the URL's host. */
  serverName?: string | null
}

export interface PostgresBootstrapOptions extends PostgresStoreOptions {
  /** A URL of the server; it may name a database to ask, else `postgres` is asked. */
  serverUrl: string
  /** The database of the store: `[A-Za-z_][A-Za-z0-9_]*`, at most 63 characters. */
  databaseName: string
}

/** A store in a PostgreSQL database, shared by any number of processes on any number of machines. */
export class FactstrPostgresStore<Event extends AnyEvent = AnyEvent> extends Store<Event> {
  /**
   * Describes a store. Neither connects nor throws: the first operation connects, and rejects if that
   * fails.
   *
   * @param url `postgres://user:password@host:5432/database?sslmode=verify-full`, or what else libpq
   *   takes: `name=value` pairs, several hosts with `target_session_attrs`, the folder of a Unix socket
   */
  constructor(url: string, options?: PostgresStoreOptions | null)

  /**
   * Connects now, and creates what is missing in the schema.
   *
   * Rejects with `InvalidOptions`, `StoreFormatUnsupported`, `BackendFailure`.
   */
  static connect<Event extends AnyEvent = AnyEvent>(
    url: string,
    options?: PostgresStoreOptions | null
  ): Promise<FactstrPostgresStore<Event>>

  /**
   * Creates the database, unless it exists, and connects to it.
   *
   * Rejects like {@link connect}.
   */
  static bootstrap<Event extends AnyEvent = AnyEvent>(
    options: PostgresBootstrapOptions
  ): Promise<FactstrPostgresStore<Event>>
}

export {}
