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
   * the clock of the machine that wrote it. It never orders anything.
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
  ? string extends Event['event_type']
    ? EventRecord<Type & string, Event['payload']>
    : Event['event_type'] extends Type
      ? EventRecord<Event['event_type'], Event['payload']>
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

/** The names of the ways in which an operation can fail. They never change. */
export type FactstrErrorCode =
  | 'EmptyAppend'
  | 'InvalidEvent'
  | 'InvalidQuery'
  | 'InvalidOptions'
  | 'StoreClosed'
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
   * Rejects with `EmptyAppend`, `InvalidEvent`, `StoreClosed`, `BackendFailure`.
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
   * Rejects with `EmptyAppend`, `InvalidEvent`, `InvalidQuery`, `StoreClosed`, `BackendFailure`.
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

  /** Takes no new work, finishes what is in flight, releases everything. Idempotent. */
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
