-- What a store asks of the server. Everything is a function, so that a question needs one round trip, and
-- no state of a session: plans are cached by the server process, whoever is connected to it.
--
-- The planner is left no choice: a plan that was made while a table was small is kept when it is not. A
-- LIMIT in a lateral subquery keeps it from turning a join around.

-- The candidates of one facet in (after, through] in the order of the walk, at most `bound`. All up to
-- `reached` are found (backwards: all after it).
CREATE OR REPLACE FUNCTION {schema}.factstr_postings(
  wanted bigint, after bigint, through bigint, backwards boolean, bound integer,
  OUT hits bigint[], OUT reached bigint
) LANGUAGE plpgsql STABLE AS $factstr$
BEGIN
  IF backwards THEN
    hits := ARRAY(
      SELECT p.sequence_number - d.distance FROM (
        SELECT e.sequence_number, e.before FROM {schema}.event_postings e
        WHERE e.facet = wanted AND e.sequence_number > after AND e.sequence_number < through + 1024
        ORDER BY e.sequence_number DESC
      ) p CROSS JOIN LATERAL (SELECT u.distance FROM unnest(p.before || 0) u (distance) ORDER BY 1) d
      WHERE p.sequence_number - d.distance > after AND p.sequence_number - d.distance <= through
      LIMIT bound
    );
    reached := CASE WHEN array_length(hits, 1) = bound THEN hits[bound] - 1 ELSE after END;
  ELSE
    hits := ARRAY(
      SELECT p.sequence_number - d FROM (
        SELECT e.sequence_number, e.before FROM {schema}.event_postings e
        WHERE e.facet = wanted AND e.sequence_number > after AND e.sequence_number < through + 1024
        ORDER BY e.sequence_number
      ) p CROSS JOIN LATERAL unnest(p.before || 0) d
      WHERE p.sequence_number - d > after AND p.sequence_number - d <= through
      LIMIT bound
    );
    reached := CASE WHEN array_length(hits, 1) = bound THEN hits[bound] ELSE through END;
  END IF;
END
$factstr$;

-- The candidates of any of several facets, in no order.
CREATE OR REPLACE FUNCTION {schema}.factstr_any(
  wanted bigint[], after bigint, through bigint, backwards boolean, bound integer,
  OUT hits bigint[], OUT reached bigint
) LANGUAGE plpgsql STABLE AS $factstr$
DECLARE
  facet bigint;
  one record;
BEGIN
  IF array_length(wanted, 1) = 1 THEN
    SELECT * INTO hits, reached
    FROM {schema}.factstr_postings(wanted[1], after, through, backwards, bound);
    RETURN;
  END IF;
  hits := '{}';
  reached := CASE WHEN backwards THEN after ELSE through END;
  FOREACH facet IN ARRAY wanted LOOP
    one := {schema}.factstr_postings(facet, after, through, backwards, bound);
    hits := hits || one.hits;
    reached := CASE WHEN backwards THEN greatest(reached, one.reached)
               ELSE least(reached, one.reached) END;
  END LOOP;
  hits := ARRAY(SELECT s FROM unnest(hits) s
    WHERE CASE WHEN backwards THEN s > reached ELSE s <= reached END);
END
$factstr$;

-- Those of `candidates` that have one of several facets.
CREATE OR REPLACE FUNCTION {schema}.factstr_having(candidates bigint[], wanted bigint[])
RETURNS bigint[] LANGUAGE plpgsql STABLE AS $factstr$
BEGIN
  RETURN ARRAY(
    SELECT c FROM unnest(candidates) c WHERE EXISTS (
      SELECT 1 FROM unnest(wanted) w
      CROSS JOIN LATERAL (
        SELECT e.sequence_number - c AS distance, e.before FROM {schema}.event_postings e
        WHERE e.facet = w AND e.sequence_number >= c ORDER BY e.sequence_number LIMIT 1
      ) p
      WHERE p.distance = 0 OR p.distance = ANY (p.before)
    )
  );
END
$factstr$;

-- The candidates that have, of each of the sets first_set to last_set, one facet: at least `enough` of
-- those that come first, unless `reached` tells that there are no more or that it took too long. Those of a
-- short set are not looked up in the others.
--
-- facets: all sets one after the other; sets: where each of them ends.
CREATE OR REPLACE FUNCTION {schema}.factstr_all(
  facets bigint[], sets integer[], first_set integer, last_set integer,
  after bigint, through bigint, backwards boolean, enough integer,
  OUT hits bigint[], OUT reached bigint
) LANGUAGE plpgsql STABLE AS $factstr$
DECLARE
  the_end bigint := CASE WHEN backwards THEN after ELSE through END;
  bound integer := CASE WHEN first_set = last_set THEN enough ELSE 32 END;
  one record;
  sparsest integer;
  gathered bigint[] := '{}';
BEGIN
  LOOP
    sparsest := NULL;
    FOR number IN first_set..last_set LOOP
      one := {schema}.factstr_any(
        facets[coalesce(sets[number - 1], 0) + 1:sets[number]], after, through, backwards, bound);
      IF one.reached = the_end OR first_set = last_set THEN
        hits := one.hits;
        reached := one.reached;
        RETURN;
      END IF;
      -- Of as many rows, those of the rarest facet reach furthest.
      IF sparsest IS NULL OR (one.reached > reached) <> backwards THEN
        sparsest := number;
        reached := one.reached;
      END IF;
    END LOOP;
    EXIT WHEN bound > 32;
    bound := 512;
  END LOOP;
  -- All sets are large: the sparsest one leads, the others are looked up.
  reached := CASE WHEN backwards THEN through ELSE after END;
  bound := 32;
  FOR attempt IN 1..64 LOOP
    IF backwards THEN
      one := {schema}.factstr_any(
        facets[coalesce(sets[sparsest - 1], 0) + 1:sets[sparsest]], after, reached, true, bound);
    ELSE
      one := {schema}.factstr_any(
        facets[coalesce(sets[sparsest - 1], 0) + 1:sets[sparsest]], reached, through, false, bound);
    END IF;
    hits := one.hits;
    reached := one.reached;
    FOR number IN first_set..last_set LOOP
      CONTINUE WHEN number = sparsest OR hits = '{}';
      hits := {schema}.factstr_having(
        hits, facets[coalesce(sets[number - 1], 0) + 1:sets[number]]);
    END LOOP;
    gathered := gathered || hits;
    EXIT WHEN reached = the_end OR array_length(gathered, 1) >= enough;
    bound := least(bound * 2, 1024);
  END LOOP;
  hits := gathered;
END
$factstr$;

-- The candidates of a query in the order of the walk: all up to `reached` (backwards: all after it).
--
-- alternatives: where the sets of each of them end.
CREATE OR REPLACE FUNCTION {schema}.factstr_candidates(
  facets bigint[], sets integer[], alternatives integer[],
  after bigint, through bigint, backwards boolean, enough integer,
  OUT hits bigint[], OUT reached bigint
) LANGUAGE plpgsql STABLE AS $factstr$
DECLARE
  first_set integer := 1;
  last_set integer;
  one record;
BEGIN
  reached := CASE WHEN backwards THEN after ELSE through END;
  hits := '{}';
  IF after >= through THEN
    RETURN;
  END IF;
  FOREACH last_set IN ARRAY alternatives LOOP
    one := {schema}.factstr_all(
      facets, sets, first_set, last_set, after, through, backwards, enough);
    hits := hits || one.hits;
    reached := CASE WHEN backwards THEN greatest(reached, one.reached)
               ELSE least(reached, one.reached) END;
    first_set := last_set + 1;
  END LOOP;
  IF array_length(facets, 1) = 1 THEN
    RETURN;
  ELSIF backwards THEN
    hits := ARRAY(SELECT DISTINCT s FROM unnest(hits) s WHERE s > reached ORDER BY s DESC);
  ELSE
    hits := ARRAY(SELECT DISTINCT s FROM unnest(hits) s WHERE s <= reached ORDER BY s);
  END IF;
END
$factstr$;

-- Events of a span in its direction, all of them: a row with the newest sequence number alone, and one for each
-- event, without its payload if that is longer than `longest`.
CREATE OR REPLACE FUNCTION {schema}.factstr_events(
  after bigint, through bigint, backwards boolean, max_rows integer, longest bigint
) RETURNS TABLE (number bigint, at timestamptz, event_type text, payload text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $factstr$
BEGIN
  number := coalesce((SELECT max(e.sequence_number) FROM {schema}.events e), 0);
  through := least(through, number);
  RETURN NEXT;
  IF backwards THEN
    RETURN QUERY
      SELECT e.sequence_number, e.occurred_at, e.event_type,
        CASE WHEN octet_length(e.payload_json) <= longest THEN e.payload_json END
      FROM {schema}.events e
      WHERE e.sequence_number > after AND e.sequence_number <= through
      ORDER BY e.sequence_number DESC LIMIT max_rows;
  ELSE
    RETURN QUERY
      SELECT e.sequence_number, e.occurred_at, e.event_type,
        CASE WHEN octet_length(e.payload_json) <= longest THEN e.payload_json END
      FROM {schema}.events e
      WHERE e.sequence_number > after AND e.sequence_number <= through
      ORDER BY e.sequence_number LIMIT max_rows;
  END IF;
END
$factstr$;

-- One page of candidates, from one snapshot: a row of kind 0 with the newest sequence number and how far
-- the candidates are known; rows of kind 1; with `version`, unless the page's last row is
-- the newest candidate anyway, a row of kind 2 that is it. Without facets every event is one.
--
-- A page of more than 16 rows ends with the row that reaches max_bytes.
CREATE OR REPLACE FUNCTION {schema}.factstr_page(
  facets bigint[], sets integer[], alternatives integer[], after bigint, through bigint,
  backwards boolean, max_rows integer, max_bytes bigint, version boolean
) RETURNS TABLE (kind smallint, number bigint, reached bigint, at timestamptz, event_type text, payload text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $factstr$
DECLARE
  head bigint;
  hits bigint[];
  bound integer;
  complete bigint;
  one record;
BEGIN
  head := coalesce((SELECT max(e.sequence_number) FROM {schema}.events e), 0);
  through := least(through, head);
  IF facets IS NULL THEN
    RETURN QUERY SELECT 0::smallint, head, NULL::bigint, NULL::timestamptz, NULL::text, NULL::text;
    IF backwards THEN
      RETURN QUERY
        SELECT 1::smallint, r.sequence_number, NULL::bigint, r.occurred_at, r.event_type, r.payload FROM (
          SELECT e.sequence_number, e.occurred_at,
            e.event_type, e.payload_json AS payload,
            sum(octet_length(e.payload_json)) OVER (ORDER BY e.sequence_number DESC) AS bytes
          FROM {schema}.events e
          WHERE e.sequence_number > after AND e.sequence_number <= through
          ORDER BY e.sequence_number DESC LIMIT max_rows
        ) r WHERE r.bytes - octet_length(r.payload) < max_bytes;
    ELSE
      RETURN QUERY
        SELECT 1::smallint, r.sequence_number, NULL::bigint, r.occurred_at, r.event_type, r.payload FROM (
          SELECT e.sequence_number, e.occurred_at,
            e.event_type, e.payload_json AS payload,
            sum(octet_length(e.payload_json)) OVER (ORDER BY e.sequence_number) AS bytes
          FROM {schema}.events e
          WHERE e.sequence_number > after AND e.sequence_number <= through
          ORDER BY e.sequence_number LIMIT max_rows
        ) r WHERE r.bytes - octet_length(r.payload) < max_bytes;
    END IF;
    RETURN;
  END IF;
  -- Most contexts are one alternative whose first set is one rare facet: that needs no other function.
  bound := CASE WHEN sets[2] IS NULL THEN max_rows ELSE 32 END;
  IF NOT backwards AND sets[1] = 1 AND alternatives[2] IS NULL THEN
    hits := ARRAY(
      SELECT p.sequence_number - d FROM (
        SELECT e.sequence_number, e.before FROM {schema}.event_postings e
        WHERE e.facet = facets[1] AND e.sequence_number > after AND e.sequence_number < through + 1024
        ORDER BY e.sequence_number
      ) p CROSS JOIN LATERAL unnest(p.before || 0) d
      WHERE p.sequence_number - d > after AND p.sequence_number - d <= through
      LIMIT bound
    );
    IF hits[bound] IS NULL THEN
      reached := through;
    ELSIF sets[2] IS NULL THEN
      reached := hits[bound];
    END IF;
  END IF;
  IF reached IS NULL THEN
    one := {schema}.factstr_candidates(
      facets, sets, alternatives, after, through, backwards, max_rows);
    hits := one.hits;
    reached := one.reached;
  END IF;
  IF hits[max_rows + 1] IS NOT NULL THEN
    hits := hits[1:max_rows];
    reached := hits[max_rows] - backwards::integer;
  END IF;
  kind := 0;
  number := head;
  RETURN NEXT;
  complete := reached;
  reached := NULL;
  IF hits[1] IS NULL THEN
    -- No rows.
  ELSIF hits[17] IS NULL THEN
    RETURN QUERY
      SELECT 1::smallint, e.sequence_number, NULL::bigint, e.occurred_at, e.event_type, e.payload_json
      FROM unnest(hits) WITH ORDINALITY c (s, ordinality) CROSS JOIN LATERAL (
        SELECT x.* FROM {schema}.events x WHERE x.sequence_number = c.s LIMIT 1
      ) e
      ORDER BY c.ordinality;
  ELSE
    RETURN QUERY
      SELECT 1::smallint, r.sequence_number, NULL::bigint, r.occurred_at, r.event_type, r.payload FROM (
        SELECT e.sequence_number, e.occurred_at,
          e.event_type, e.payload_json AS payload,
          sum(octet_length(e.payload_json)) OVER (ORDER BY c.ordinality) AS bytes
        FROM unnest(hits) WITH ORDINALITY c (s, ordinality) CROSS JOIN LATERAL (
          SELECT x.* FROM {schema}.events x WHERE x.sequence_number = c.s LIMIT 1
        ) e
        ORDER BY c.ordinality
      ) r WHERE r.bytes - octet_length(r.payload) < max_bytes;
  END IF;
  IF version AND (backwards OR hits[1] IS NULL OR complete < head) THEN
    IF hits[1] IS NULL AND after = 0 AND complete = head THEN
      RETURN;
    END IF;
    one := {schema}.factstr_candidates(facets, sets, alternatives, 0, head, true, 1);
    IF one.hits[1] IS NULL THEN
      -- Nothing at all, or not found yet.
      RETURN QUERY
        SELECT 2::smallint, one.reached, NULL::bigint, NULL::timestamptz, NULL::text, NULL::text;
    ELSE
      RETURN QUERY
        SELECT 2::smallint, e.sequence_number, NULL::bigint, e.occurred_at, e.event_type, e.payload_json
        FROM {schema}.events e WHERE e.sequence_number = one.hits[1];
    END IF;
  END IF;
END
$factstr$;

-- The first candidates of a facet in (after, through], at most `bound`. Each row has the newest sequence number, and
-- an event if there is one; the payloads of large ones are left out.
--
-- Having no settings of its own it becomes part of the statement that calls it, which saves a third of a small
-- context's time. The session must have them, see `statements.rs`.
CREATE OR REPLACE FUNCTION {schema}.factstr_few(wanted bigint, after bigint, through bigint, bound integer)
RETURNS TABLE (large boolean, number bigint, head bigint, at timestamptz, event_type text, payload text)
LANGUAGE sql STABLE
AS $factstr$
  SELECT octet_length(e.payload_json) > 65536, e.sequence_number, h.head, e.occurred_at, e.event_type,
    CASE WHEN octet_length(e.payload_json) <= 65536 THEN e.payload_json END
  FROM (SELECT coalesce((SELECT max(n.sequence_number) FROM {schema}.events n), 0) AS head) h
  LEFT JOIN LATERAL (
    SELECT x.* FROM (
      SELECT p.sequence_number, p.before FROM {schema}.event_postings p
      WHERE p.facet = wanted AND p.sequence_number > after AND p.sequence_number < through + 1024
      ORDER BY p.sequence_number
    ) p
    CROSS JOIN LATERAL unnest(p.before || 0) d
    CROSS JOIN LATERAL (
      SELECT v.* FROM {schema}.events v WHERE v.sequence_number = p.sequence_number - d LIMIT 1
    ) x
    WHERE p.sequence_number - d > after AND p.sequence_number - d <= through
    LIMIT bound
  ) e ON true
$factstr$;

-- Whether an event matches filters, exactly as the contract says. jsonb's containment is the contract's
-- subset match, but for a scalar predicate at the root, which an array payload would contain.
CREATE OR REPLACE FUNCTION {schema}.factstr_matches(filters jsonb, event_type text, payload jsonb)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $factstr$
  SELECT EXISTS (
    SELECT 1 FROM jsonb_array_elements(filters) f
    WHERE (coalesce(jsonb_typeof(f -> 'event_types'), 'null') = 'null' OR f -> 'event_types' ? event_type)
      AND (coalesce(jsonb_typeof(f -> 'payload_predicates'), 'null') = 'null' OR EXISTS (
        SELECT 1 FROM jsonb_array_elements(f -> 'payload_predicates') p
        WHERE payload @> p
          AND (jsonb_typeof(p) IN ('object', 'array') OR jsonb_typeof(p) = jsonb_typeof(payload))
      ))
  )
$factstr$;

-- The newest match of a context in (after, through], 0 if there is none.
--
-- context: {"facets": [...], "sets": [...], "alternatives": [...], "filters": [...]}; if the facets
-- are null every event is looked at.
CREATE OR REPLACE FUNCTION {schema}.factstr_newest(context jsonb, after bigint, through bigint)
RETURNS bigint LANGUAGE plpgsql STABLE AS $factstr$
DECLARE
  facets bigint[] := CASE WHEN jsonb_typeof(context -> 'facets') = 'array' THEN
    ARRAY(SELECT v::bigint FROM jsonb_array_elements_text(context -> 'facets') v) END;
  sets integer[] := ARRAY(SELECT v::integer FROM jsonb_array_elements_text(context -> 'sets') v);
  alternatives integer[] :=
    ARRAY(SELECT v::integer FROM jsonb_array_elements_text(context -> 'alternatives') v);
  filters jsonb := context -> 'filters';
  one record;
  newest bigint;
BEGIN
  IF facets IS NULL THEN
    -- No facet tells which events may match.
    RETURN coalesce((
      SELECT e.sequence_number FROM {schema}.events e
      WHERE e.sequence_number > after AND e.sequence_number <= through
        AND {schema}.factstr_matches(filters, e.event_type, e.payload_json::jsonb)
      ORDER BY e.sequence_number DESC LIMIT 1
    ), 0);
  END IF;
  WHILE after < through LOOP
    one := {schema}.factstr_candidates(facets, sets, alternatives, after, through, true, 8);
    -- Candidates come newest first, and mostly the first one matches.
    FOR place IN 1..coalesce(array_length(one.hits, 1), 0) LOOP
      SELECT e.sequence_number INTO newest FROM {schema}.events e
      WHERE e.sequence_number = one.hits[place]
        AND {schema}.factstr_matches(filters, e.event_type, e.payload_json::jsonb);
      IF newest IS NOT NULL THEN
        RETURN newest;
      END IF;
    END LOOP;
    through := one.reached;
  END LOOP;
  RETURN 0;
END
$factstr$;

-- As revision 2 had it.
DROP FUNCTION IF EXISTS {schema}.factstr_append(
  bigint, bigint, integer[], text[], text[], bigint[], integer[], text[], integer[], integer[], integer[],
  bigint[], bigint[], text[], integer[], bigint[], bigint[], integer[], integer[], integer[]
);

-- Commits a group of appends: each request is one batch, appended whole or, if its context has changed, not
-- at all. Later requests see earlier ones.
--
-- writer, number: what the group can be asked for later, see factstr_settle.
-- look: for other stores that have streams.
-- sizes: the number of events of each request; event_types, payloads: all events in order.
-- facets, lasts, befores: postings, with the place of the last event among all (from 1).
-- batch_firsts, batch_lasts: the places of batches of more than one event.
-- Conditions, one element each, ascending by request: which request (from 1), the expected version (0:
-- none), a head as of which it is known to be the version (-1: it is not known), the context as for
-- factstr_newest (NULL: every event).
-- watch_*: facets of which every match of a condition's context has at least one, by condition, and after
-- which event they matter.
-- after_*: which earlier requests of the group would break a condition, by condition: the request, and the
-- place of its newest match among all events.
--
-- head: the newest sequence number before the group. verdicts: NULL if every request was appended; else
-- for each its first sequence number, or -1 - (the context's version, 0: none). listened: whether other
-- stores have streams; NULL: it was not looked for.
CREATE OR REPLACE FUNCTION {schema}.factstr_append(
  writer bigint, number bigint, look boolean, sizes integer[], event_types text[], payloads text[],
  facets bigint[], lasts integer[], befores text[], batch_firsts integer[], batch_lasts integer[],
  condition_request integer[], condition_expected bigint[], condition_known bigint[],
  condition_context text[],
  watch_condition integer[], watch_facet bigint[], watch_after bigint[],
  after_condition integer[], after_request integer[], after_place integer[],
  OUT head bigint, OUT occurred_at timestamptz, OUT verdicts bigint[], OUT listened boolean
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $factstr$
DECLARE
  the_time timestamptz := clock_timestamp();
  suspects integer[];
  -- The version of each condition's context as of the head in condition_known.
  versions bigint[] := condition_expected;
  unknown integer[] := '{}';
  before_lock bigint;
  context text;
  newest bigint;
  places bigint[];
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- The check must see what was committed while the lock was waited for.
    RAISE EXCEPTION 'factstr: the isolation level must be read committed' USING ERRCODE = 'FS001';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  IF -1 = ANY (condition_known) THEN
    -- What may take long is not done under the lock: there only what comes after is looked at.
    before_lock := coalesce((SELECT max(e.sequence_number) FROM {schema}.events e), 0);
    FOR condition IN 1..array_length(condition_known, 1) LOOP
      IF condition_known[condition] = -1 AND condition_context[condition] IS NOT NULL THEN
        -- Requests for a hot context come together.
        IF context IS DISTINCT FROM condition_context[condition] THEN
          context := condition_context[condition];
          newest := {schema}.factstr_newest(context::jsonb, 0, before_lock);
        END IF;
        versions[condition] := newest;
        condition_known[condition] := before_lock;
        unknown := unknown || condition;
      END IF;
    END LOOP;
  END IF;
  PERFORM pg_advisory_xact_lock(1717658484, '{literal}.events'::regclass::oid::integer);
  head := coalesce((SELECT max(e.sequence_number) FROM {schema}.events e), 0);
  occurred_at := the_time;

  IF condition_request <> '{}' THEN
    IF head < ANY (condition_known) THEN
      -- The server has lost what it had, in a failover: nothing is known any more.
      FOR condition IN 1..array_length(condition_known, 1) LOOP
        IF condition_known[condition] > head THEN
          versions[condition] := {schema}.factstr_newest(condition_context[condition]::jsonb, 0, head);
          condition_known[condition] := head;
        END IF;
      END LOOP;
    END IF;
    suspects := unknown || ARRAY(
      SELECT w.condition FROM unnest(watch_condition, watch_facet, watch_after) w (condition, facet, after)
      CROSS JOIN LATERAL (
        SELECT 1 FROM {schema}.event_postings p
        WHERE p.facet = w.facet AND p.sequence_number > w.after LIMIT 1
      ) p
    );
    verdicts := {schema}.factstr_decide(
      head, sizes, condition_request, condition_expected, condition_known, versions, condition_context,
      suspects, after_condition, after_request, after_place);
  END IF;

  IF verdicts IS NULL THEN
    INSERT INTO {schema}.events (sequence_number, occurred_at, event_type, payload_json)
    SELECT head + e.place, the_time, e.event_type, e.payload
    FROM unnest(event_types, payloads) WITH ORDINALITY e (event_type, payload, place);

    INSERT INTO {schema}.event_postings (facet, sequence_number, before)
    SELECT p.facet, head + p.last, p.before::integer[]
    FROM unnest(facets, lasts, befores) p (facet, last, before);

    IF batch_firsts <> '{}' THEN
      INSERT INTO {schema}.append_batches (first_sequence_number, last_sequence_number)
      SELECT head + b.first, head + b.last FROM unnest(batch_firsts, batch_lasts) b (first, last);
    END IF;
  ELSIF 0 < ANY (verdicts) THEN
    -- Places move up where requests before them were refused.
    places := ARRAY(
      SELECT CASE WHEN v.verdict > 0 THEN v.verdict + e.offset - 1 END
      FROM unnest(verdicts, sizes) WITH ORDINALITY v (verdict, size, request)
      CROSS JOIN LATERAL generate_series(1, v.size) e ("offset")
      ORDER BY v.request, e.offset
    );

    INSERT INTO {schema}.events (sequence_number, occurred_at, event_type, payload_json)
    SELECT e.place, the_time, e.event_type, e.payload
    FROM unnest(places, event_types, payloads) e (place, event_type, payload)
    WHERE e.place IS NOT NULL;

    INSERT INTO {schema}.event_postings (facet, sequence_number, before)
    SELECT p.facet, p.last,
      nullif(ARRAY(SELECT (p.last - s)::integer FROM unnest(p.places) s WHERE s < p.last ORDER BY s), '{}')
    FROM (
      SELECT g.facet, max(places[g.last - d]) AS last, array_agg(places[g.last - d]) AS places
      FROM unnest(facets, lasts, befores) g (facet, last, before)
      CROSS JOIN LATERAL unnest(g.before::integer[] || 0) d
      WHERE places[g.last - d] IS NOT NULL
      GROUP BY g.facet, g.last
    ) p;

    INSERT INTO {schema}.append_batches (first_sequence_number, last_sequence_number)
    SELECT places[b.first], places[b.last] FROM unnest(batch_firsts, batch_lasts) b (first, last)
    WHERE places[b.first] IS NOT NULL;
  ELSE
    -- Nothing to commit, so nothing to be asked for later.
    RETURN;
  END IF;

  INSERT INTO {schema}.append_groups (writer, number, head, verdicts)
  VALUES (writer, number, head, verdicts);
  IF number % 64 = 0 THEN
    DELETE FROM {schema}.append_groups g WHERE g.writer = factstr_append.writer
      AND g.number < factstr_append.number AND g.head IS NOT NULL
      -- Rows that an old snapshot still sees are not gone from the index: they must not be walked anew.
      AND g.number >= factstr_append.number - 4096;
  END IF;
  IF look THEN
    listened := EXISTS (
      SELECT 1 FROM {schema}.stream_stores s
      WHERE s.store <> writer AND s.touched_at > the_time - interval '10 seconds'
    );
  END IF;
END
$factstr$;

-- The verdicts of a group, NULL if all of its requests are to be appended.
CREATE OR REPLACE FUNCTION {schema}.factstr_decide(
  head bigint, sizes integer[], condition_request integer[], condition_expected bigint[],
  condition_known bigint[], condition_version bigint[], condition_context text[], suspects integer[],
  after_condition integer[], after_request integer[], after_place integer[]
) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $factstr$
DECLARE
  verdicts bigint[] := '{}';
  refused boolean := false;
  condition integer := 1;
  later integer := 1;
  next bigint := head + 1;
  -- The place in the group of the last event of the requests so far.
  place integer := 0;
  -- The place of the first event of each request.
  firsts integer[] := '{}';
  expected bigint;
  actual bigint;
  -- Of what was looked at last: requests for a hot context come together.
  context text;
  known bigint;
  newest bigint;
BEGIN
  IF suspects = '{}' AND after_condition = '{}' AND array_position(condition_context, NULL) IS NULL
     AND condition_version = condition_expected THEN
    RETURN NULL;
  END IF;
  FOR request IN 1..array_length(sizes, 1) LOOP
    actual := NULL;
    IF condition_request[condition] = request THEN
      expected := condition_expected[condition];
      actual := condition_version[condition];
      IF condition_context[condition] IS NULL THEN
        actual := next - 1;
      ELSE
        IF condition = ANY (suspects) THEN
          IF context IS DISTINCT FROM condition_context[condition]
             OR known IS DISTINCT FROM condition_known[condition] THEN
            context := condition_context[condition];
            known := condition_known[condition];
            newest := {schema}.factstr_newest(context::jsonb, known, head);
          END IF;
          IF newest > 0 THEN
            actual := newest;
          END IF;
        END IF;
        WHILE after_condition[later] = condition LOOP
          IF verdicts[after_request[later]] > 0 THEN
            actual := verdicts[after_request[later]] + after_place[later] - firsts[after_request[later]];
          END IF;
          later := later + 1;
        END LOOP;
      END IF;
      condition := condition + 1;
    END IF;
    firsts[request] := place + 1;
    place := place + sizes[request];
    IF actual IS NULL OR actual = expected THEN
      verdicts[request] := next;
      next := next + sizes[request];
    ELSE
      verdicts[request] := -1 - actual;
      refused := true;
    END IF;
  END LOOP;
  RETURN CASE WHEN refused THEN verdicts END;
END
$factstr$;

-- Finds out what became of a group whose answer was lost, and sees to it that it does not commit any more
-- if it has not: then `head` is NULL. Waits for a commit that is under way.
CREATE OR REPLACE FUNCTION {schema}.factstr_settle(
  writer bigint, number bigint, OUT head bigint, OUT occurred_at timestamptz, OUT verdicts bigint[]
) LANGUAGE plpgsql AS $factstr$
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  INSERT INTO {schema}.append_groups (writer, number) VALUES (writer, number) ON CONFLICT DO NOTHING;
  -- A session that ends while it waits for a synchronous standby has committed, and shows it, without
  -- waiting. Whoever has written something waits for all that was committed before.
  UPDATE {schema}.append_groups g SET committed_at = g.committed_at
  WHERE g.writer = factstr_settle.writer AND g.number = factstr_settle.number
  RETURNING g.head, g.verdicts INTO head, verdicts;
  IF head IS NOT NULL THEN
    SELECT e.occurred_at INTO occurred_at
    FROM {schema}.events e WHERE e.sequence_number > head ORDER BY e.sequence_number LIMIT 1;
  END IF;
END
$factstr$;

-- The batches of more than one event that reach into [first, last].
CREATE OR REPLACE FUNCTION {schema}.factstr_batches(first bigint, last bigint)
RETURNS TABLE (first_sequence_number bigint, last_sequence_number bigint) LANGUAGE sql STABLE AS $factstr$
  SELECT b.first_sequence_number, b.last_sequence_number FROM {schema}.append_batches b
  WHERE b.first_sequence_number <= last AND b.first_sequence_number >= coalesce((
    SELECT max(a.first_sequence_number) FROM {schema}.append_batches a WHERE a.first_sequence_number <= first
  ), 0) AND b.last_sequence_number >= first
  ORDER BY b.first_sequence_number
$factstr$;

-- The batches of more than one event that have one of `events`.
CREATE OR REPLACE FUNCTION {schema}.factstr_batches_of(events bigint[])
RETURNS TABLE (first_sequence_number bigint, last_sequence_number bigint) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $factstr$
BEGIN
  RETURN QUERY
    SELECT DISTINCT b.first, b.last FROM unnest(events) e (number) CROSS JOIN LATERAL (
      SELECT a.first_sequence_number AS first, a.last_sequence_number AS last
      FROM {schema}.append_batches a WHERE a.first_sequence_number <= e.number
      ORDER BY a.first_sequence_number DESC LIMIT 1
    ) b WHERE b.last >= e.number ORDER BY b.first;
END
$factstr$;
