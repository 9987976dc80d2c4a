-- Tracks: days that are there before the first fix comes, and whole days that go one by one.

-- Once a fix of a day lies in the default partition, that day gets none of its own any more.
DO $$ BEGIN
    PERFORM make_delivery_track_day((clock_timestamp() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, 2) ahead;
END $$;

-- Drops the days (UTC) before a day: how many went, and how many are still there. A day of another role's is left and holds
-- up no other; one that is being read ends the call, since each DROP takes the same lock on the whole table.
-- (forget_delivery_track_before is for programs of before this migration alone.)
CREATE FUNCTION drop_delivery_track_days_before(day date, OUT gone integer, OUT kept integer)
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    old_days text[] := ARRAY(
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'delivery_track'::regclass AND c.relname ~ '^delivery_track_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < day
        ORDER BY c.relname);
    partition text;
BEGIN
    gone := 0;
    FOREACH partition IN ARRAY old_days LOOP
        BEGIN
            EXECUTE format('DROP TABLE %I', partition);
            gone := gone + 1;
        EXCEPTION
            WHEN insufficient_privilege THEN NULL;
            WHEN lock_not_available THEN EXIT;
        END;
    END LOOP;
    kept := cardinality(old_days) - gone;
END $$;
