-- From what factstr-postgres 0.5.2 wrote: payloads become text, its indexes go.
LOCK TABLE {schema}.events, {schema}.append_batches, {schema}.durable_stream_cursors
  IN ACCESS EXCLUSIVE MODE;
DROP INDEX IF EXISTS {schema}.idx_events_payload_gin, {schema}.idx_events_type,
  {schema}.idx_events_occurred_at;
ALTER TABLE {schema}.events ALTER COLUMN payload TYPE text USING payload::text;
-- What an old process that still runs appends would be in no index: it must fail.
ALTER TABLE {schema}.events RENAME COLUMN payload TO payload_json;
