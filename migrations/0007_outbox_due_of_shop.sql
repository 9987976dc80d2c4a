-- no-transaction
-- Each shop has so many posts under way at once: what is due is looked up by shop.
CREATE INDEX CONCURRENTLY IF NOT EXISTS outbox_due_of_shop ON outbox (shop, next_try_at) WHERE state = 'pending';
