SELECT generation, indexed_through,
       (SELECT coalesce(max(sequence_number), 0) FROM events)
FROM index_state;
