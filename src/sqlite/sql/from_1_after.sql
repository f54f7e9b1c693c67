-- Its indexes go with it.
DROP TABLE events_1;
