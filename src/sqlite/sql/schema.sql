-- Format 2. The log itself; occurred_at in microseconds since 1970, UTC.
CREATE TABLE events (
  sequence_number INTEGER PRIMARY KEY,
  occurred_at INTEGER NOT NULL,
  event_type TEXT NOT NULL,
  payload TEXT NOT NULL
);

-- Batches of more than one event. An event in no row is a batch of its own.
CREATE TABLE append_batches (
  first_sequence_number INTEGER PRIMARY KEY,
  last_sequence_number INTEGER NOT NULL
);

CREATE TABLE store_metadata (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE subscriber_cursors (
  subscriber_id TEXT PRIMARY KEY,
  event_query TEXT NOT NULL,
  last_processed_sequence_number INTEGER NOT NULL
);
