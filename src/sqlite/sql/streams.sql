-- Durable streams, since format 3.
CREATE TABLE durable_streams (
  name TEXT PRIMARY KEY,
  -- The filters as registered: JSON text, null for every event.
  filters TEXT NOT NULL,
  -- The stream is done with everything up to here; the end of a batch.
  position INTEGER NOT NULL,
  -- Who runs it, null when nobody does.
  owner INTEGER,
  -- Grows whenever the owner changes: a former owner's late write is refused.
  fencing INTEGER NOT NULL
);

-- Stores that run durable streams. One without a sign of life for some seconds is gone.
CREATE TABLE stream_owners (
  owner INTEGER PRIMARY KEY,
  -- Milliseconds since 1970.
  touched_at INTEGER NOT NULL
);
