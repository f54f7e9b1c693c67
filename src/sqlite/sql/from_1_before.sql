CREATE TABLE factstr_new_events (
  sequence_number INTEGER PRIMARY KEY,
  occurred_at INTEGER NOT NULL,
  event_type TEXT NOT NULL,
  payload TEXT NOT NULL
);
