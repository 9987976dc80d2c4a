import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MAX_RETRY_AFTER_MS, parseRetryAfter, retryDelayMs } from '../../src/outbox/backoff';

const BACKOFF = { baseMs: 1_000, maxMs: 300_000 };

test('the limit doubles with each failure up to the highest', () => {
    const limits = [1, 2, 3, 9, 10, 1_000_000].map(attempts => retryDelayMs(BACKOFF, attempts, undefined, 1));
    assert.deepEqual(limits, [1_000, 2_000, 4_000, 256_000, 300_000, 300_000]);
});

test('the whole of it is random', () => {
    assert.equal(retryDelayMs(BACKOFF, 4, undefined, 0), 0);
    assert.equal(retryDelayMs(BACKOFF, 4, undefined, 0.5), 4_000);
    for (let i = 0; i < 1_000; i += 1) {
        const delay = retryDelayMs(BACKOFF, 3, undefined);
        assert.ok(delay >= 0 && delay <= 4_000);
    }
});

test('what the receiver asked for comes before it, within reason', () => {
    assert.equal(retryDelayMs(BACKOFF, 1, 5_000, 0), 5_000);
    assert.equal(retryDelayMs(BACKOFF, 1, 5_000, 0.5), 5_500);
    assert.equal(retryDelayMs(BACKOFF, 1, 1e12, 0), MAX_RETRY_AFTER_MS);
});

test('Retry-After is seconds or a date', () => {
    const now = new Date('2026-01-27T10:00:00Z');
    assert.equal(parseRetryAfter(null, now), undefined);
    assert.equal(parseRetryAfter('7', now), 7_000);
    assert.equal(parseRetryAfter('Tue, 27 Jan 2026 10:00:09 GMT', now), 9_000);
    assert.equal(parseRetryAfter('Tue, 27 Jan 2026 09:00:00 GMT', now), 0);
    assert.equal(parseRetryAfter('soon', now), undefined);
});
