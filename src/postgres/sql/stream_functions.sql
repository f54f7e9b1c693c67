-- Leases and cursors of durable streams. Times are the server's.

-- Whether a store has given a sign of life lately.
CREATE OR REPLACE FUNCTION {schema}.factstr_is_alive(wanted bigint) RETURNS boolean
LANGUAGE sql VOLATILE AS $factstr$
  SELECT EXISTS (
    SELECT 1 FROM {schema}.stream_stores s
    WHERE s.store = wanted AND s.touched_at > clock_timestamp() - interval '4 seconds'
  )
$factstr$;

-- Gives a sign of life. Tells whether others may have thought the store gone since the last one.
CREATE OR REPLACE FUNCTION {schema}.factstr_touch(wanted bigint) RETURNS boolean
LANGUAGE plpgsql AS $factstr$
DECLARE
  silent boolean := NOT {schema}.factstr_is_alive(wanted);
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  INSERT INTO {schema}.stream_stores (store, touched_at) VALUES (wanted, clock_timestamp())
  ON CONFLICT (store) DO UPDATE SET touched_at = excluded.touched_at;
  DELETE FROM {schema}.stream_stores s WHERE s.touched_at < clock_timestamp() - interval '1 minute'
    AND s.store <> wanted;
  RETURN silent;
END
$factstr$;

-- Takes the lease of a durable stream, which is created if it is missing. `outcome` is 'taken'; or 'active',
-- somebody else has it; or 'other', its filters are `stored`, and not the ones expected.
-- mine: the store runs the stream, which its own row can't tell.
CREATE OR REPLACE FUNCTION {schema}.factstr_take_lease(
  wanted text, filters text, expected text, store bigint, mine boolean,
  OUT outcome text, OUT stored text, OUT fencing bigint, OUT "position" bigint, OUT head bigint
) LANGUAGE plpgsql AS $factstr$
DECLARE
  stream record;
  durability text := current_setting('synchronous_commit');
BEGIN
  SELECT * INTO stream FROM {schema}.durable_streams s WHERE s.name = wanted;
  IF stream.name IS NULL THEN
    -- Larger than any number that a stream of this name has had, should one have been deleted.
    INSERT INTO {schema}.durable_streams (name, filters, position, fencing)
    VALUES (wanted, filters, 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    ON CONFLICT DO NOTHING;
  END IF;
  FOR attempt IN 1..2 LOOP
    IF stream.name IS NOT NULL THEN
      IF stream.filters <> expected THEN
        outcome := 'other';
        stored := stream.filters;
        RETURN;
      END IF;
      -- Who stands by asks often, and must not take a lock for it.
      IF (CASE WHEN stream.owner = store THEN mine ELSE {schema}.factstr_is_alive(stream.owner) END) THEN
        outcome := 'active';
        RETURN;
      END IF;
    END IF;
    SELECT * INTO stream FROM {schema}.durable_streams s WHERE s.name = wanted FOR UPDATE;
    IF stream.name IS NULL THEN
      -- It was deleted meanwhile: the caller asks again.
      outcome := 'other';
      stored := filters;
      RETURN;
    END IF;
  END LOOP;
  PERFORM {schema}.factstr_touch(store);
  -- A server that crashes must not forget whose it is.
  PERFORM set_config('synchronous_commit', CASE durability WHEN 'off' THEN 'on' ELSE durability END, true);
  UPDATE {schema}.durable_streams s SET owner = store, fencing = s.fencing + 1
  WHERE s.name = wanted RETURNING s.fencing, s.position INTO fencing, position;
  head := coalesce((SELECT max(e.sequence_number) FROM {schema}.events e), 0);
  outcome := 'taken';
END
$factstr$;

-- Stores cursors, and returns the names of those whose lease is somebody else's.
CREATE OR REPLACE FUNCTION {schema}.factstr_store_cursors(
  names text[], fencings bigint[], positions bigint[], store bigint
) RETURNS SETOF text LANGUAGE plpgsql AS $factstr$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  RETURN QUERY
    WITH moved (name, fencing, position) AS (SELECT * FROM unnest(names, fencings, positions)),
    stored AS (
      UPDATE {schema}.durable_streams s SET position = greatest(s.position, m.position) FROM moved m
      WHERE s.name = m.name AND s.fencing = m.fencing AND s.owner = store RETURNING s.name
    )
    SELECT m.name FROM moved m WHERE m.name NOT IN (SELECT t.name FROM stored t);
END
$factstr$;

-- Stores the last cursors and gives leases back; of those given back already that nobody has taken since,
-- stores later cursors. Returns the names of those that are somebody else's.
CREATE OR REPLACE FUNCTION {schema}.factstr_release(
  names text[], fencings bigint[], positions bigint[], store bigint
) RETURNS SETOF text LANGUAGE sql AS $factstr$
  WITH given (name, fencing, position) AS (SELECT * FROM unnest(names, fencings, positions)),
  released AS (
    UPDATE {schema}.durable_streams s SET position = greatest(s.position, g.position), owner = NULL
    FROM given g
    WHERE s.name = g.name AND s.fencing = g.fencing AND (s.owner = store OR s.owner IS NULL)
    RETURNING s.name
  )
  SELECT g.name FROM given g WHERE g.name NOT IN (SELECT r.name FROM released r)
$factstr$;

-- The names of those leases that are somebody else's by now.
CREATE OR REPLACE FUNCTION {schema}.factstr_lost_leases(names text[], fencings bigint[], store bigint)
RETURNS SETOF text LANGUAGE sql STABLE AS $factstr$
  SELECT h.name FROM unnest(names, fencings) h (name, fencing) WHERE NOT EXISTS (
    SELECT 1 FROM {schema}.durable_streams s
    WHERE s.name = h.name AND s.fencing = h.fencing AND s.owner = store
  )
$factstr$;

-- Moves an inactive stream's cursor to `after`, or to the end of the batch before, if that is in the
-- middle of one; with NULL forgets the stream. Returns 'done', 'missing', 'active' or 'beyond'.
CREATE OR REPLACE FUNCTION {schema}.factstr_change_stream(
  wanted text, after bigint, store bigint, mine boolean, OUT outcome text, OUT head bigint
) LANGUAGE plpgsql AS $factstr$
DECLARE
  stream record;
BEGIN
  head := coalesce((SELECT max(e.sequence_number) FROM {schema}.events e), 0);
  SELECT * INTO stream FROM {schema}.durable_streams s WHERE s.name = wanted FOR UPDATE;
  IF stream.name IS NULL THEN
    outcome := 'missing';
  ELSIF (CASE WHEN stream.owner = store THEN mine ELSE {schema}.factstr_is_alive(stream.owner) END) THEN
    outcome := 'active';
  ELSIF after IS NULL THEN
    DELETE FROM {schema}.durable_streams s WHERE s.name = wanted;
    outcome := 'done';
  ELSIF after > head THEN
    outcome := 'beyond';
  ELSE
    after := coalesce((
      SELECT b.first_sequence_number - 1 FROM (
        SELECT * FROM {schema}.append_batches WHERE first_sequence_number <= after
        ORDER BY first_sequence_number DESC LIMIT 1
      ) b WHERE b.last_sequence_number > after
    ), after);
    -- A holder that is only thought to be gone must not write its cursor over this one.
    UPDATE {schema}.durable_streams s SET position = after, owner = NULL, fencing = s.fencing + 1
    WHERE s.name = wanted;
    outcome := 'done';
  END IF;
END
$factstr$;

-- Tells those who listen that something was committed. Not in the transaction of the append: that would
-- take a lock that is one for all databases of the server.
CREATE OR REPLACE FUNCTION {schema}.factstr_notify() RETURNS void LANGUAGE plpgsql AS $factstr$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  PERFORM pg_notify('factstr_' || '{literal}.events'::regclass::oid, '');
END
$factstr$;

-- A store is closed.
CREATE OR REPLACE FUNCTION {schema}.factstr_forget_store(wanted bigint) RETURNS void LANGUAGE plpgsql AS $factstr$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  -- What was given up must stay known, for a statement that may still arrive.
  DELETE FROM {schema}.append_groups g WHERE g.writer = wanted AND g.head IS NOT NULL;
  DELETE FROM {schema}.append_groups g WHERE g.committed_at < now() - interval '1 day';
  DELETE FROM {schema}.stream_stores s WHERE s.store = wanted;
END
$factstr$;
