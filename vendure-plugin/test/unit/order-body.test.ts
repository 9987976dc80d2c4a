import assert from 'node:assert/strict';
import { test } from 'node:test';

import { resolveDropoffFromAddress, resolvePickupFromSeller } from '../../src/outbox/default-stops';
import { cancelledBody, readyBody, UndeliverableOrderError } from '../../src/outbox/order-body';

const FACTS = {
    order: {
        id: 4711,
        code: 'T3XK',
        orderPlacedAt: new Date('2026-01-27T10:00:00Z'),
        lines: [
            { quantity: 2, productVariant: { sku: 'A1', name: 'Dosa' } },
            { quantity: 0, productVariant: { sku: 'B1', name: 'Taken out' } },
        ],
    },
    channel: { id: 2 },
    seller: { id: 7, name: 'Kitchen A' },
};
const HERE = { lat: 12.9716, lon: 77.5946 };
const THERE = { lat: 12.9352, lon: 77.6245 };

test('an order in the shape of the contract', () => {
    const body = readyBody(FACTS, { ...HERE, address: 'Kitchen 7' }, THERE, { gift: true });
    assert.deepEqual(JSON.parse(JSON.stringify(body)), {
        sellerOrderId: '4711',
        channelId: '2',
        pickup: { ...HERE, address: 'Kitchen 7' },
        drop: THERE,
        orderCode: 'T3XK',
        seller: { id: '7', name: 'Kitchen A' },
        items: [{ sku: 'A1', name: 'Dosa', quantity: 2 }],
        readyAt: '2026-01-27T10:00:00.000Z',
        metadata: { gift: true },
    });
});

test('texts are cut to what the service takes, whole characters only', () => {
    const body = readyBody(FACTS, { ...HERE, notes: '🛵'.repeat(1_200), phone: '1'.repeat(99), address: 'a\0b' }, THERE, undefined);
    assert.equal([...(body.pickup.notes ?? '')].length, 1_000);
    assert.ok(body.pickup.notes?.endsWith('🛵'));
    assert.equal(body.pickup.phone?.length, 64);
    assert.equal(body.pickup.address, 'ab');
    const lines = Array(501).fill({ quantity: 1 });
    assert.equal(readyBody({ ...FACTS, order: { ...FACTS.order, lines } }, HERE, THERE, undefined).items?.length, 500);
});

test('what makes the body too large is left out of its end', () => {
    const productVariant = { sku: '₹'.repeat(128), name: 'ಇಡ್ಲಿ'.repeat(20) };
    const lines = Array(500).fill({ quantity: 1, productVariant });
    const body = readyBody({ ...FACTS, order: { ...FACTS.order, lines } }, HERE, THERE, undefined);
    const size = Buffer.byteLength(JSON.stringify(body));
    assert.ok(size <= 262_144 && size > 260_000, String(size));
    assert.deepEqual(body.items?.[0], { ...productVariant, quantity: 1 });
    const large = { text: 'x'.repeat(270_000) };
    assert.deepEqual(readyBody({ ...FACTS, order: { ...FACTS.order, lines } }, HERE, THERE, large).items, []);
});

test('an order without a place is for an operator', () => {
    assert.throws(() => readyBody(FACTS, undefined, THERE, undefined), UndeliverableOrderError);
    assert.throws(() => readyBody(FACTS, HERE, undefined, undefined), /shipping address has no coordinates/);
});

test('a cancellation', () => {
    const { reason, ...ids } = cancelledBody(FACTS);
    assert.deepEqual(ids, { sellerOrderId: '4711', channelId: '2' });
    assert.ok(reason);
});

test('the pickup is in the custom fields of the seller', () => {
    const resolve = (customFields: object) => resolvePickupFromSeller({ seller: { name: 'A', customFields } } as never);
    const fields = { ...HERE, pickupAddress: 'Kitchen 7', pickupPhone: '1', pickupNotes: 'ring', pickupContactName: null };
    assert.deepEqual(resolve(fields), { ...HERE, address: 'Kitchen 7', contactName: 'A', phone: '1', notes: 'ring' });
    assert.equal(resolve({ lat: 0, lon: null }), undefined);
    assert.equal(resolve({ lat: NaN, lon: 1 }), undefined);
    assert.equal(resolvePickupFromSeller({} as never), undefined);
    // On the equator is a place.
    assert.equal(resolve({ lat: 0, lon: 10 })?.lat, 0);
});

test('the drop is the shipping address with its custom fields', () => {
    const shippingAddress = { streetLine1: '12 Lake Road', city: 'Bengaluru', postalCode: '560001', customFields: THERE };
    const customer = { firstName: 'Meera', lastName: 'Rao', phoneNumber: '2' };
    const resolve = (order: object) => resolveDropoffFromAddress({ order } as never);
    assert.deepEqual(resolve({ shippingAddress, customer }), {
        ...THERE,
        address: '12 Lake Road, 560001 Bengaluru',
        contactName: 'Meera Rao',
        phone: '2',
    });
    assert.equal(resolve({ shippingAddress: { ...shippingAddress, customFields: undefined } }), undefined);
    assert.equal(resolve({}), undefined);
});
