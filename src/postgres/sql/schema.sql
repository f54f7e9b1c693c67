-- The tables of a store, format 2.

-- The log. Sequence numbers have no gaps: the one after the newest is given under the append lock.
CREATE TABLE {schema}.events (
  sequence_number bigint PRIMARY KEY,
  occurred_at timestamptz NOT NULL,
  event_type text NOT NULL,
  -- JSON text as it came in, but for numbers that JSON's shortest digits do not tell exactly.
  payload_json text NOT NULL
);

-- Batches of more than one event; every other event is a batch of its own.
CREATE TABLE {schema}.append_batches (
  first_sequence_number bigint PRIMARY KEY,
  last_sequence_number bigint NOT NULL
);

CREATE TABLE {schema}.store_metadata (
  key text PRIMARY KEY,
  value text NOT NULL
);
