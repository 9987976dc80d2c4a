-- no-transaction
-- Where the role may make no tables, all fixes lie in the default partition: what is old is found there without reading the rest.
CREATE INDEX CONCURRENTLY IF NOT EXISTS delivery_track_other_by_time ON delivery_track_other (fix_time);
