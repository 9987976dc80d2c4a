-- no-transaction
-- A shop lists its own events, however many others have.
CREATE INDEX CONCURRENTLY IF NOT EXISTS outbox_of_shop ON outbox (shop, event_id);
