-- Its indexes and triggers go with it.
DROP TABLE events;
ALTER TABLE factstr_new_events RENAME TO events;
