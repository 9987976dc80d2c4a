-- Work that one node does at a time, and where drivers went with a delivery in hand.

-- A lease is taken and renewed by its holder, and free for anybody once it has expired. No session locks: a
-- transaction-pooling proxy may stand before the database.
CREATE TABLE leases (
    name        text PRIMARY KEY,
    holder      text NOT NULL,
    expires_at  timestamptz NOT NULL
);

-- The fixes of drivers while they had a delivery in hand. Keyed by driver and time, since deliveries of one driver share
-- their fixes; whose delivery it was is told by assignments. Cut by day, so that old days go at once.
-- Commits to this table alone are asynchronous, as those to driver_positions are.
CREATE TABLE delivery_track (
    driver_id  uuid             NOT NULL,
    fix_time   timestamptz      NOT NULL,
    lat        double precision NOT NULL,
    lon        double precision NOT NULL,
    CONSTRAINT delivery_track_once PRIMARY KEY (driver_id, fix_time),
    CONSTRAINT delivery_track_range CHECK (lat BETWEEN -85.05112878 AND 85.05112878 AND lon BETWEEN -180 AND 180)
) PARTITION BY RANGE (fix_time);

-- For fixes of a day that has no partition of its own: no fix is refused because a keeper did not run.
CREATE TABLE delivery_track_other PARTITION OF delivery_track DEFAULT;

-- Which assignments a driver had at the time of a fix.
CREATE INDEX assignments_by_driver ON assignments (driver_id, created_at);

-- Makes the partition of a day (UTC) unless it is there, or fixes of that day lie in the default partition already. False
-- when the role may not make tables; then the default partition takes that day's fixes.
CREATE FUNCTION make_delivery_track_day(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'delivery_track_' || to_char(day, 'YYYYMMDD');
    begins timestamptz := day::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(partition) IS NOT NULL
       OR EXISTS (SELECT 1 FROM delivery_track_other WHERE fix_time >= begins AND fix_time < ends) THEN
        RETURN true;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF delivery_track FOR VALUES FROM (%L) TO (%L)', partition, begins, ends);
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN false;
END $$;

-- Forgets fixes before a day (UTC): whole partitions at once, and up to `most` rows of the default partition. How many
-- partitions went.
CREATE FUNCTION forget_delivery_track_before(day date, most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    partition text;
    gone integer := 0;
BEGIN
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'delivery_track'::regclass AND c.relname ~ '^delivery_track_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < day
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        gone := gone + 1;
    END LOOP;
    DELETE FROM delivery_track_other WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM delivery_track_other WHERE fix_time < day::timestamp AT TIME ZONE 'UTC' LIMIT most));
    RETURN gone;
END $$;
