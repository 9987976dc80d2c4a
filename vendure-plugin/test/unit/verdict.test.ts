import assert from 'node:assert/strict';
import { test } from 'node:test';

import { judge } from '../../src/outbox/verdict';

const answer = (status: number, body: unknown = {}, retryAfter: string | null = null) => ({
    status,
    retryAfter,
    body: typeof body === 'string' ? body : JSON.stringify(body),
});
const TAKEN = { deliveryId: 'd1', shop: 'vendure', sellerOrderId: '7', status: 'PENDING', duplicate: false };

test('what was delivered cannot be called off, and that is no fault', () => {
    const body = (state: string) => JSON.stringify({ code: 'already_terminal', detail: `the delivery is already ${state}`, state });
    const judged = (state: string) => judge('cancelled', '1', { status: 409, retryAfter: null, body: body(state) }).outcome;
    assert.deepEqual([judged('DELIVERED'), judged('FAILED')], ['skipped', 'failed']);
});

test('every 2xx in the shape of the service is taken', () => {
    for (const status of [200, 201, 202]) {
        const verdict = judge('ready', '7', answer(status, TAKEN));
        assert.deepEqual(verdict, { outcome: 'sent', status, deliveryId: 'd1', note: undefined });
    }
    const conflict = judge('ready', '7', answer(200, { ...TAKEN, duplicate: true, conflict: true }));
    const note = (verdict: typeof conflict) => (verdict.outcome === 'sent' ? (verdict.note ?? '') : '');
    assert.match(note(conflict), /other values and keeps those: coordinates$/);
    const differs = ['drop.phone', 'pickup.notes'];
    const named = judge('ready', '7', answer(200, { ...TAKEN, duplicate: true, conflict: true, differs }));
    assert.match(note(named), /keeps those: drop.phone, pickup.notes$/);
    // A cancellation of an order that is not known yet has no delivery.
    assert.equal(judge('cancelled', '7', answer(202, { sellerOrderId: '7', status: 'CANCELLED' })).outcome, 'sent');
});

test('a 2xx of somebody else is tried again', () => {
    for (const body of ['<html>Welcome</html>', '[]', 'null', { ok: true }, { ...TAKEN, sellerOrderId: '8' }]) {
        assert.equal(judge('ready', '7', answer(200, body)).outcome, 'retry');
    }
});

test('an order at fault is parked with every field named', () => {
    const problem = {
        code: 'invalid_fields',
        detail: 'some fields are not as they must be; see errors',
        errors: [{ field: 'drop.lat', code: 'range', message: 'is out of range' }, { field: 'metadata', message: 'too long' }],
    };
    const verdict = judge('ready', '7', answer(422, problem));
    assert.equal(verdict.outcome, 'failed');
    assert.match(JSON.stringify(verdict), /422 invalid_fields .*: drop\.lat is out of range; metadata too long/);
    assert.equal(judge('ready', '7', answer(413)).outcome, 'failed');
});

test('a delivery that is over cannot be called off', () => {
    assert.equal(judge('cancelled', '7', answer(409, { code: 'already_terminal' })).outcome, 'failed');
    assert.equal(judge('ready', '7', answer(409)).outcome, 'retry');
});

test('what an operator or another moment may mend is tried again', () => {
    for (const status of [301, 307, 400, 401, 403, 404, 405, 408, 410, 415, 429, 500, 502, 503, 504]) {
        assert.equal(judge('ready', '7', answer(status, 'not JSON')).outcome, 'retry', String(status));
    }
    const busy = judge('ready', '7', answer(503, {}, '4'));
    assert.equal(busy.outcome === 'retry' && busy.retryAfterMs, 4_000);
});
