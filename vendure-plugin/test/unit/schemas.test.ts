/** The plugin against the schemas and examples of the service. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isKnown, KNOWN_EVENTS, parseEvent } from '../../src/events/event';
import { cancelledBody, readyBody } from '../../src/outbox/order-body';
import { examples, faults, SCHEMAS } from '../support/schemas';

const PLACE = { lat: 12.9716, lon: 77.5946 };
const LONG = 'ü'.repeat(5_000);
const FULL_STOP = { ...PLACE, address: LONG, contactName: LONG, phone: LONG, notes: LONG };

/** As it goes over the wire. */
const sent = (...facts: Parameters<typeof readyBody>): unknown => JSON.parse(JSON.stringify(readyBody(...facts)));

test('what is posted fits the schema', () => {
    const order = { id: 'a1b2', code: 'T3XK', lines: [] };
    assert.equal(faults('seller-order-ready', sent({ order, channel: { id: 2 } }, PLACE, PLACE, undefined)), '');
    const full = {
        order: {
            id: 4711,
            code: LONG,
            orderPlacedAt: new Date('2026-01-27T10:00:00Z'),
            lines: [{ quantity: 2, productVariant: { sku: LONG, name: LONG } }, { quantity: 1 }],
        },
        channel: { id: 2 },
        seller: { id: 7, name: LONG },
    };
    assert.equal(faults('seller-order-ready', sent(full, FULL_STOP, FULL_STOP, { any: [1, { deep: null }] })), '');
    assert.equal(faults('seller-order-cancelled', cancelledBody(full)), '');
    const { drop: _, ...without } = sent(full, PLACE, PLACE, undefined) as Record<string, unknown>;
    assert.match(faults('seller-order-ready', without), /drop/);
});

test('every example fits its schema', () => {
    for (const { file, schema, body } of examples()) {
        assert.equal(faults(schema, body), '', file);
    }
    assert.deepEqual(new Set(examples().map(({ schema }) => schema)), new Set(SCHEMAS));
});

test('every example of what is refused is refused', () => {
    const refused = examples('examples/invalid');
    assert.ok(refused.length > 0);
    for (const { file, schema, body } of refused) {
        assert.notEqual(faults(schema, body), '', file);
    }
});

test('every example of an event is read, and all events are among them', () => {
    const events = examples().filter(({ schema }) => schema === 'delivery-event');
    for (const { file, body } of events) {
        const event = parseEvent(Buffer.from(JSON.stringify(body)));
        assert.ok(isKnown(event.event), file);
        for (const [field, value] of Object.entries(event)) {
            if (typeof value !== 'object') {
                assert.equal(value, body[field], `${file}: ${field}`);
            }
        }
        const { driver, failure } = body as Record<string, Record<string, string> | undefined>;
        assert.equal(event.driver?.name, driver?.name, file);
        assert.equal(event.failure?.code, failure?.code, file);
    }
    assert.deepEqual(new Set(events.map(({ body }) => body.event)), new Set(KNOWN_EVENTS));
});
