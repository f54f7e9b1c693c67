INSERT INTO events (sequence_number, occurred_at, event_type, payload) VALUES (?1, ?2, ?3, ?4);
