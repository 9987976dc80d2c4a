import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isKnown, NoEventError, parseEvent } from '../../src/events/event';

const EVENT = {
    event: 'DELIVERY_ASSIGNED_V1',
    version: 1,
    eventId: 'e1',
    sequence: 2,
    timestamp: '2026-01-27T10:00:00.000Z',
    shop: 'vendure',
    sellerOrderId: '4711',
    channelId: '2',
    deliveryId: 'd1',
    status: 'ASSIGNED',
    attempt: 1,
    driver: { name: 'Asha', phone: '+91' },
};
const parse = (change: object) => parseEvent(Buffer.from(JSON.stringify({ ...EVENT, ...change })));

test('an event as the service writes it', () => {
    const event = parse({ trackingUrl: 'https://tracker.example.com/track/x' });
    assert.equal(event.sequence, 2);
    assert.deepEqual(event.driver, { name: 'Asha', phone: '+91' });
    assert.equal(event.trackingUrl, 'https://tracker.example.com/track/x');
});

test('unknown events, fields and values are borne', () => {
    const event = parse({ event: 'DELIVERY_TELEPORTED_V9', status: 'ELSEWHERE', somethingNew: { deep: [1] }, driver: 'who', failure: [] });
    assert.equal(isKnown(event.event), false);
    assert.equal(event.driver, undefined);
    assert.equal(event.failure, undefined);
});

test('what is no web address becomes no link', () => {
    for (const trackingUrl of ['javascript:alert(1)', 'ftp://x', 7, `https://${'x'.repeat(3_000)}`]) {
        assert.equal(parse({ trackingUrl }).trackingUrl, undefined);
    }
});

test('what is not JSON is 400', () => {
    for (const body of [Buffer.from('{'), Buffer.from(''), Buffer.from([0x22, 0xff, 0x22])]) {
        assert.throws(() => parseEvent(body), (error: NoEventError) => error.status === 400);
    }
});

test('what is no event is 422, each field named', () => {
    for (const body of ['[]', 'null', '"text"', '7']) {
        assert.throws(() => parseEvent(Buffer.from(body)), (error: NoEventError) => error.status === 422);
    }
    const faults: object[] = [{ sequence: '2' }, { sequence: 0 }, { sequence: 1.5 }, { sequence: 2 ** 31 }, { eventId: '' }, { deliveryId: null }];
    for (const fault of faults) {
        assert.throws(() => parse(fault), (error: NoEventError) => error.status === 422 && error.message.includes(Object.keys(fault)[0] as string));
    }
    assert.throws(() => parseEvent(Buffer.from('{}')), /event must .*eventId must .*sequence must/);
});
