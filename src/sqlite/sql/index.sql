-- The facet index. It can be rebuilt from the events at any time.

-- One row: events up to indexed_through are covered by live runs, the rest by nobody yet. The
-- generation changes whenever the set of live runs does.
CREATE TABLE index_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  generation INTEGER NOT NULL,
  indexed_through INTEGER NOT NULL
);
INSERT INTO index_state (id, generation, indexed_through) VALUES (1, 0, 0);

-- The live runs cover (0, indexed_through] without gap or overlap. A run being built covers what the
-- live runs it will replace cover; a dead one waits for the removal of its blocks.
CREATE TABLE facet_runs (
  run_id INTEGER PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('building', 'live', 'dead')),
  first_sequence_number INTEGER NOT NULL,
  last_sequence_number INTEGER NOT NULL,
  block_count INTEGER NOT NULL,
  -- First entry of each block, 8 bytes each.
  fences BLOB NOT NULL,
  -- Seconds since 1970 of the builder's last sign of life.
  touched_at INTEGER NOT NULL
);

-- block_id = run_id * 2^24 + number of the block within the run.
CREATE TABLE facet_blocks (
  block_id INTEGER PRIMARY KEY,
  entries BLOB NOT NULL
);
