-- What depends on the payloads as factstr-postgres 0.5.2 wrote them, or on its cursors, and was not made by it.
SELECT DISTINCT o.type || ' ' || o.identity
FROM pg_depend d
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
LEFT JOIN pg_constraint n ON d.classid = 'pg_constraint'::regclass AND n.oid = d.objid
-- A view depends by its rule.
LEFT JOIN pg_rewrite v ON d.classid = 'pg_rewrite'::regclass AND v.oid = d.objid AND v.rulename = '_RETURN'
CROSS JOIN LATERAL pg_identify_object(
  CASE WHEN v.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass END,
  CASE WHEN v.oid IS NULL THEN d.objid ELSE v.ev_class END,
  CASE WHEN v.oid IS NULL THEN d.objsubid ELSE 0 END
) o
WHERE d.refclassid = 'pg_class'::regclass AND (
  d.refobjid = to_regclass('{literal}.durable_stream_cursors') AND d.deptype = 'n'
  OR (d.refobjid, d.refobjsubid) IN (
    SELECT a.attrelid, a.attnum FROM pg_attribute a
    WHERE a.attrelid = to_regclass('{literal}.events') AND a.attname = 'payload'
  )
  -- Indexes that go, and what the server itself makes of NOT NULL.
  AND c.relname IS DISTINCT FROM 'idx_events_payload_gin' AND n.contype IS DISTINCT FROM 'n'
)
ORDER BY 1;
