INSERT INTO facet_runs (
  run_id, state, first_sequence_number, last_sequence_number, block_count, fences, touched_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);
