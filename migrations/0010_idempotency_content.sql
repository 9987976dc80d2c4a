-- A repeat may be written another way than the first request: other white space, names in another order, 1e2 for 100.
-- `body_hash` stays the hash of the bytes, which programs without this column compare; NULL in what they wrote.
ALTER TABLE idempotency_keys ADD COLUMN content_hash bytea;
