SELECT sequence_number, occurred_at, event_type, payload FROM events
WHERE sequence_number > ?1 AND sequence_number <= ?2 ORDER BY sequence_number DESC;
