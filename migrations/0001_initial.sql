-- The schema of driver-tracker. PostgreSQL is the source of truth: every invariant that a row can state is stated here.
-- Migrations only grow (expand, then contract), so that two versions of the program can run side by side.

-- What the program must know about the database itself.
CREATE TABLE database_identity (
    singleton           boolean PRIMARY KEY DEFAULT true CONSTRAINT database_identity_single CHECK (singleton),
    id                  uuid    NOT NULL DEFAULT gen_random_uuid(),
    -- The lowest migration number that a program must know to work on this schema.
    min_program_schema  bigint  NOT NULL
);
INSERT INTO database_identity (min_program_schema) VALUES (1);

CREATE TABLE shops (
    name        text PRIMARY KEY CONSTRAINT shops_name_form CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Where a shop's events go. Secrets of the configured shop stay in the configuration.
CREATE TABLE shop_endpoints (
    shop         text PRIMARY KEY CONSTRAINT shop_endpoints_shop REFERENCES shops (name),
    enabled      boolean NOT NULL DEFAULT true,
    disabled_at  timestamptz,
    reason       text
);

CREATE TABLE drivers (
    id           uuid PRIMARY KEY,
    name         text    NOT NULL,
    phone        text    NOT NULL,
    external_id  text,
    metadata     jsonb,
    on_duty      boolean NOT NULL DEFAULT false,
    active       boolean NOT NULL DEFAULT true,
    capacity     integer NOT NULL DEFAULT 1 CONSTRAINT drivers_capacity_positive CHECK (capacity >= 1),
    used_slots   integer NOT NULL DEFAULT 0
                 CONSTRAINT drivers_slots_within_capacity CHECK (used_slots >= 0 AND used_slots <= capacity),
    status       text    NOT NULL GENERATED ALWAYS AS (
                     CASE WHEN used_slots >= capacity THEN 'BUSY'
                          WHEN on_duty AND active THEN 'AVAILABLE'
                          ELSE 'OFFLINE' END) STORED,
    -- Grows by one with every change of the state above: what Redis and sessions are fenced by.
    epoch        bigint  NOT NULL DEFAULT 1,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT drivers_inactive_is_idle CHECK (active OR (NOT on_duty AND used_slots = 0))
) WITH (fillfactor = 70);
CREATE INDEX drivers_changed_at ON drivers (changed_at);
CREATE INDEX drivers_external_id ON drivers (external_id) WHERE external_id IS NOT NULL;

-- Audit of drivers: one row per epoch.
CREATE TABLE driver_events (
    driver_id   uuid   NOT NULL CONSTRAINT driver_events_driver REFERENCES drivers (id),
    epoch       bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    status      text   NOT NULL,
    on_duty     boolean NOT NULL,
    reason      text   NOT NULL,
    actor_kind  text   NOT NULL CONSTRAINT driver_events_actor CHECK (actor_kind IN ('driver', 'operator', 'system', 'shop')),
    actor_id    text,
    CONSTRAINT driver_events_once PRIMARY KEY (driver_id, epoch)
);

CREATE TABLE driver_tokens (
    id          uuid PRIMARY KEY,
    driver_id   uuid  NOT NULL CONSTRAINT driver_tokens_driver REFERENCES drivers (id),
    token_hash  bytea NOT NULL CONSTRAINT driver_tokens_hash_unique UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
CREATE INDEX driver_tokens_driver_id ON driver_tokens (driver_id);

CREATE TABLE ws_tickets (
    ticket_hash  bytea PRIMARY KEY,
    token_id     uuid  NOT NULL CONSTRAINT ws_tickets_token REFERENCES driver_tokens (id),
    expires_at   timestamptz NOT NULL
);
CREATE INDEX ws_tickets_expires_at ON ws_tickets (expires_at);

-- The newest session of each driver. Work born in a session reads this row FOR SHARE and stops when it is not theirs.
CREATE TABLE driver_sessions (
    driver_id      uuid PRIMARY KEY CONSTRAINT driver_sessions_driver REFERENCES drivers (id),
    session_epoch  bigint NOT NULL,
    session_id     uuid   NOT NULL,
    token_id       uuid   NOT NULL,
    node_id        text   NOT NULL,
    opened_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Where drivers are when Redis cannot say. Kept apart from drivers: heartbeats must not touch the rows that claims lock.
-- Commits to this table alone are asynchronous: a crash loses at most the last moments, which the next heartbeat mends.
CREATE TABLE driver_positions (
    driver_id      uuid PRIMARY KEY CONSTRAINT driver_positions_driver REFERENCES drivers (id),
    lat            double precision,
    lon            double precision,
    fix_time       timestamptz,
    last_seen_at   timestamptz NOT NULL,
    session_epoch  bigint NOT NULL,
    CONSTRAINT driver_positions_whole CHECK ((lat IS NULL) = (lon IS NULL) AND (lat IS NULL) = (fix_time IS NULL)),
    CONSTRAINT driver_positions_range CHECK (lat BETWEEN -85.05112878 AND 85.05112878 AND lon BETWEEN -180 AND 180)
) WITH (fillfactor = 50);
CREATE INDEX driver_positions_place ON driver_positions USING gist (point(lon, lat)) WITH (fillfactor = 70);
CREATE INDEX driver_positions_seen ON driver_positions (last_seen_at);

CREATE TABLE deliveries (
    id               uuid PRIMARY KEY,
    shop             text NOT NULL CONSTRAINT deliveries_shop REFERENCES shops (name),
    seller_order_id  text NOT NULL,
    channel_id       text NOT NULL,
    order_code       text,
    external_id      text,
    metadata         jsonb,
    seller           jsonb,
    items            jsonb,
    ready_at         timestamptz,
    pickup_lat       double precision NOT NULL,
    pickup_lon       double precision NOT NULL,
    pickup_details   jsonb NOT NULL,
    drop_lat         double precision NOT NULL,
    drop_lon         double precision NOT NULL,
    drop_details     jsonb NOT NULL,
    status           text NOT NULL CONSTRAINT deliveries_status CHECK (status IN
                     ('PENDING', 'ASSIGNED', 'PICKED_UP', 'IN_TRANSIT', 'DELIVERED', 'FAILED', 'CANCELLED')),
    attempt          integer NOT NULL DEFAULT 1 CONSTRAINT deliveries_attempt_positive CHECK (attempt >= 1),
    region           bigint NOT NULL,
    next_attempt_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    search_rounds    integer NOT NULL DEFAULT 0,
    driver_id        uuid CONSTRAINT deliveries_driver REFERENCES drivers (id),
    assignment_id    uuid,
    assigned_at      timestamptz,
    picked_up_at     timestamptz,
    delivered_at     timestamptz,
    cancelled_at     timestamptz,
    failure          jsonb,
    last_sequence    integer NOT NULL DEFAULT 0,
    last_hash        bytea,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT deliveries_one_per_order UNIQUE (shop, seller_order_id),
    CONSTRAINT deliveries_driver_matches_status CHECK (
        (status IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT')) <= (driver_id IS NOT NULL AND assignment_id IS NOT NULL)
        AND (status <> 'PENDING' OR (driver_id IS NULL AND assignment_id IS NULL))),
    CONSTRAINT deliveries_coordinates CHECK (
        pickup_lat BETWEEN -85.05112878 AND 85.05112878 AND pickup_lon BETWEEN -180 AND 180 AND
        drop_lat BETWEEN -85.05112878 AND 85.05112878 AND drop_lon BETWEEN -180 AND 180)
);
CREATE INDEX deliveries_waiting ON deliveries (region, created_at, id) WHERE status = 'PENDING';
CREATE INDEX deliveries_created ON deliveries (created_at DESC, id DESC);
CREATE INDEX deliveries_by_driver ON deliveries (driver_id, id) WHERE driver_id IS NOT NULL;
CREATE INDEX deliveries_external_id ON deliveries (external_id) WHERE external_id IS NOT NULL;

-- Orders that a shop called off before it ever sent them.
CREATE TABLE early_cancellations (
    shop             text NOT NULL CONSTRAINT early_cancellations_shop REFERENCES shops (name),
    seller_order_id  text NOT NULL,
    channel_id       text NOT NULL,
    reason           text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT early_cancellations_once PRIMARY KEY (shop, seller_order_id)
);

CREATE TABLE assignments (
    id            uuid PRIMARY KEY,
    delivery_id   uuid    NOT NULL CONSTRAINT assignments_delivery REFERENCES deliveries (id),
    driver_id     uuid    NOT NULL CONSTRAINT assignments_driver REFERENCES drivers (id),
    attempt       integer NOT NULL,
    slot          integer CONSTRAINT assignments_slot_not_negative CHECK (slot >= 0),
    state         text    NOT NULL CONSTRAINT assignments_state CHECK (state IN
                  ('OFFERED', 'ACTIVE', 'COMPLETED', 'DECLINED', 'EXPIRED', 'REVOKED')),
    distance_m    double precision,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    picked_up_at  timestamptz,
    departed_at   timestamptz,
    ended_at      timestamptz,
    -- How it ended: DELIVERED, FAILED, REJECTED, TAKEN_BACK or CANCELLED.
    ended_as      text CONSTRAINT assignments_ended_as CHECK (ended_as IN
                  ('DELIVERED', 'FAILED', 'REJECTED', 'TAKEN_BACK', 'CANCELLED')),
    CONSTRAINT assignments_slot_iff_active CHECK ((state = 'ACTIVE') = (slot IS NOT NULL)),
    CONSTRAINT assignments_once_per_attempt UNIQUE (delivery_id, attempt, driver_id)
);
CREATE UNIQUE INDEX assignments_one_active_per_delivery ON assignments (delivery_id) WHERE state = 'ACTIVE';
CREATE UNIQUE INDEX assignments_one_active_per_slot ON assignments (driver_id, slot) WHERE state = 'ACTIVE';

-- Audit of deliveries: append-only, no gap in sequence, each row bound to the one before it by its hash.
CREATE TABLE delivery_events (
    delivery_id  uuid    NOT NULL CONSTRAINT delivery_events_delivery REFERENCES deliveries (id),
    sequence     integer NOT NULL CONSTRAINT delivery_events_sequence_positive CHECK (sequence >= 1),
    type         text    NOT NULL CONSTRAINT delivery_events_type CHECK (type IN
                 ('CREATED', 'ASSIGNED', 'UNASSIGNED', 'PICKED_UP', 'IN_TRANSIT', 'DELIVERED', 'FAILED', 'CANCELLED',
                  'RETRIED', 'CHANGED', 'CONFLICT')),
    at           timestamptz NOT NULL,
    actor_kind   text    NOT NULL CONSTRAINT delivery_events_actor CHECK (actor_kind IN ('driver', 'operator', 'system', 'shop')),
    actor_id     text,
    data         jsonb   NOT NULL,
    prev_hash    bytea,
    hash         bytea   NOT NULL,
    CONSTRAINT delivery_events_once PRIMARY KEY (delivery_id, sequence)
);
-- One CONFLICT row per different body.
CREATE UNIQUE INDEX delivery_events_one_conflict_per_body ON delivery_events (delivery_id, (data ->> 'bodyHash'))
    WHERE type = 'CONFLICT';

CREATE TABLE outbox (
    event_id      uuid PRIMARY KEY,
    delivery_id   uuid    NOT NULL,
    shop          text    NOT NULL CONSTRAINT outbox_shop REFERENCES shops (name),
    sequence      integer NOT NULL,
    type          text    NOT NULL,
    -- The posted body, byte for byte the same on every attempt.
    body          bytea   NOT NULL,
    state         text    NOT NULL DEFAULT 'pending' CONSTRAINT outbox_state CHECK (state IN ('pending', 'delivered', 'dead')),
    tries         integer NOT NULL DEFAULT 0,
    next_try_at   timestamptz NOT NULL,
    lease_owner   text,
    lease_until   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outbox_event_of_trail FOREIGN KEY (delivery_id, sequence) REFERENCES delivery_events (delivery_id, sequence),
    CONSTRAINT outbox_once UNIQUE (delivery_id, sequence)
);
CREATE INDEX outbox_pending ON outbox (delivery_id, sequence) WHERE state = 'pending';
CREATE INDEX outbox_due ON outbox (next_try_at) WHERE state = 'pending';
CREATE INDEX outbox_pending_since ON outbox (created_at) WHERE state = 'pending';
CREATE INDEX outbox_dead ON outbox (event_id) WHERE state = 'dead';

CREATE TABLE outbox_attempts (
    event_id  uuid NOT NULL CONSTRAINT outbox_attempts_event REFERENCES outbox (event_id),
    number    integer NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    status    integer,
    error     text,
    CONSTRAINT outbox_attempts_once PRIMARY KEY (event_id, number)
);

-- Commands to drivers, written in the transaction that makes them true, repeated until acknowledged.
CREATE TABLE driver_commands (
    message_id     uuid PRIMARY KEY,
    driver_id      uuid NOT NULL CONSTRAINT driver_commands_driver REFERENCES drivers (id),
    kind           text NOT NULL CONSTRAINT driver_commands_kind CHECK (kind IN ('assignment', 'assignment.cancelled', 'delivery')),
    delivery_id    uuid NOT NULL CONSTRAINT driver_commands_delivery REFERENCES deliveries (id),
    assignment_id  uuid NOT NULL CONSTRAINT driver_commands_assignment REFERENCES assignments (id),
    reason         text,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    acked_at       timestamptz
);
CREATE INDEX driver_commands_unacked ON driver_commands (driver_id, message_id) WHERE acked_at IS NULL;

CREATE TABLE api_keys (
    id          uuid PRIMARY KEY,
    name        text  NOT NULL,
    scope       text  NOT NULL CONSTRAINT api_keys_scope CHECK (scope IN ('admin', 'read', 'shop')),
    shop        text  CONSTRAINT api_keys_shop REFERENCES shops (name),
    key_hash    bytea NOT NULL CONSTRAINT api_keys_hash_unique UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    CONSTRAINT api_keys_shop_iff_scope CHECK ((scope = 'shop') = (shop IS NOT NULL))
);

CREATE TABLE idempotency_keys (
    owner       text  NOT NULL,
    route       text  NOT NULL,
    key         text  NOT NULL,
    body_hash   bytea NOT NULL,
    status      integer NOT NULL,
    location    text,
    response    bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT idempotency_keys_once PRIMARY KEY (owner, route, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
