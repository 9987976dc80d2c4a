-- Shops beside the one that the configuration makes: each with secrets in and out, an address, and a limit of its own.

-- NULL: as ORDERS_PER_SECOND says. 0: no limit.
ALTER TABLE shops
    ADD COLUMN orders_per_second integer CONSTRAINT shops_orders_per_second_range CHECK (orders_per_second >= 0),
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT clock_timestamp();

-- NULL: nothing is posted, and nothing is written to be posted either.
ALTER TABLE shop_endpoints ADD COLUMN url text;

-- A secret is not stored: it is derived from its row and a key of the configuration (SHOP_SECRETS_KEY), whose fingerprint
-- tells by which.
CREATE TABLE shop_secrets (
    id           uuid PRIMARY KEY,
    shop         text NOT NULL CONSTRAINT shop_secrets_shop REFERENCES shops (name),
    direction    text NOT NULL CONSTRAINT shop_secrets_direction CHECK (direction IN ('orders', 'events')),
    fingerprint  text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: until another one takes its place.
    expires_at   timestamptz
);
CREATE INDEX shop_secrets_of_shop ON shop_secrets (shop, direction, id);

-- Events behind one that waits for its next try wait as long.
UPDATE outbox l SET next_try_at = o.next_try_at
FROM (SELECT DISTINCT ON (delivery_id) delivery_id, sequence, next_try_at FROM outbox WHERE state = 'pending'
      ORDER BY delivery_id, sequence) o
WHERE l.delivery_id = o.delivery_id AND l.state = 'pending' AND l.sequence > o.sequence AND l.next_try_at < o.next_try_at;

-- What nodes compare to see that something about shops has changed.
CREATE TABLE shops_version (
    singleton  boolean PRIMARY KEY DEFAULT true CONSTRAINT shops_version_single CHECK (singleton),
    version    bigint NOT NULL
);
INSERT INTO shops_version (version) VALUES (1);
