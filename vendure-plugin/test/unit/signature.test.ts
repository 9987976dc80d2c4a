import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Webhook } from 'standardwebhooks';

import { refuseSignature, signedHeaders, SigningSecret } from '../../src/signature';

const OLD = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
const NEW = `whsec_${Buffer.alloc(32, 2).toString('base64')}`;
const [old, fresh] = [SigningSecret.parse(OLD), SigningSecret.parse(NEW)];
const BODY = Buffer.from('{"text":"é"}');
const NOW = new Date('2026-01-27T10:00:00Z');

test('what is signed is verified by the library of the standard', () => {
    const headers = signedHeaders([old, fresh], 'order-1', BODY);
    for (const secret of [OLD, NEW]) {
        assert.deepEqual(new Webhook(secret).verify(BODY, headers), { text: 'é' });
    }
});

test('what the library signs is verified', () => {
    const now = new Date();
    const headers = {
        'webhook-id': 'event-1',
        'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
        'webhook-signature': new Webhook(OLD).sign('event-1', now, BODY.toString()),
    };
    assert.equal(refuseSignature([fresh, old], headers, BODY), undefined);
    assert.equal(refuseSignature([fresh], headers, BODY), 'mismatch');
});

test('any signature may fit any secret, while secrets rotate', () => {
    const both = signedHeaders([old, fresh], 'id', BODY, NOW);
    assert.equal(refuseSignature([old], both, BODY, NOW), undefined);
    assert.equal(refuseSignature([fresh], both, BODY, NOW), undefined);
    const one = signedHeaders([old], 'id', BODY, NOW);
    assert.equal(refuseSignature([fresh, old], one, BODY, NOW), undefined);
});

test('another body, id or time is refused', () => {
    const headers = signedHeaders([old], 'id', BODY, NOW);
    assert.equal(refuseSignature([old], headers, Buffer.from('{}'), NOW), 'mismatch');
    assert.equal(refuseSignature([old], { ...headers, 'webhook-id': 'other' }, BODY, NOW), 'mismatch');
    const earlier = String(Number(headers['webhook-timestamp']) - 1);
    assert.equal(refuseSignature([old], { ...headers, 'webhook-timestamp': earlier }, BODY, NOW), 'mismatch');
});

test('300 seconds either way are allowed, and no more', () => {
    const headers = signedHeaders([old], 'id', BODY, NOW);
    const after = (seconds: number) => new Date(NOW.getTime() + seconds * 1000);
    assert.equal(refuseSignature([old], headers, BODY, after(300)), undefined);
    assert.equal(refuseSignature([old], headers, BODY, after(-300)), undefined);
    assert.equal(refuseSignature([old], headers, BODY, after(301)), 'stale');
    assert.equal(refuseSignature([old], headers, BODY, after(-301)), 'stale');
});

test('headers that are missing or cannot be read are refused', () => {
    const headers = signedHeaders([old], 'id', BODY, NOW);
    assert.equal(refuseSignature([old], {}, BODY, NOW), 'missing');
    assert.equal(refuseSignature([old], { ...headers, 'webhook-id': undefined }, BODY, NOW), 'missing');
    for (const timestamp of ['1e9', '-5', 'soon']) {
        assert.equal(refuseSignature([old], { ...headers, 'webhook-timestamp': timestamp }, BODY, NOW), 'malformed');
    }
    for (const signature of ['v1,short', 'v2,AAAA', 'nonsense']) {
        assert.equal(refuseSignature([old], { ...headers, 'webhook-signature': signature }, BODY, NOW), 'malformed');
    }
});

test('secrets that are none are refused without being told', () => {
    for (const text of ['hunter2', 'whsec_', 'whsec_***', `whsec_${Buffer.alloc(23).toString('base64')}`]) {
        assert.throws(
            () => SigningSecret.parse(text),
            (error: Error) => text === 'whsec_' || !error.message.includes(text),
        );
    }
    assert.ok(!JSON.stringify({ old }).includes(OLD.slice(6)));
});
