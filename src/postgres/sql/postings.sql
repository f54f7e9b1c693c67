-- Where the events of a facet are: one row for all of them in one group of appends.
CREATE TABLE {schema}.event_postings (
  -- A hash of a path and a value in the payload, or of the event type.
  facet bigint NOT NULL,
  -- The last one.
  sequence_number bigint NOT NULL,
  -- How far back the others are: at most 63, descending, below 1024; NULL if there are none.
  before integer[],
  PRIMARY KEY (facet, sequence_number)
);

-- What became of a writer's newest groups of appends, for one that has lost its connection.
CREATE TABLE {schema}.append_groups (
  writer bigint NOT NULL,
  number bigint NOT NULL,
  committed_at timestamptz NOT NULL DEFAULT now(),
  -- The newest sequence number before the group; NULL: the group was given up and can't commit any more.
  head bigint,
  -- See factstr_append; NULL if every request was appended.
  verdicts bigint[],
  PRIMARY KEY (writer, number)
);

CREATE TABLE {schema}.durable_streams (
  name text COLLATE "C" PRIMARY KEY,
  -- The filters of its query, JSON text.
  filters text NOT NULL,
  -- The newest sequence number that it is done with.
  position bigint NOT NULL,
  -- The store that runs it.
  owner bigint,
  -- Grows with every lease: only the newest holder may move the cursor.
  fencing bigint NOT NULL
);

-- Stores with running streams, and when each last gave a sign of life.
CREATE TABLE {schema}.stream_stores (
  store bigint PRIMARY KEY,
  touched_at timestamptz NOT NULL
);

-- For people with psql: the log with its payloads as jsonb.
CREATE VIEW {schema}.facts AS
  SELECT sequence_number, occurred_at, event_type, payload_json::jsonb AS payload FROM {schema}.events;
