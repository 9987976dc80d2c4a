import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DriverTrackerOptions, resolveOptions } from '../../src/options';

const SECRET = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
const GOOD: DriverTrackerOptions = { serviceUrl: 'https://tracker.example.com/', signingSecrets: SECRET, eventSecrets: [SECRET] };

test('defaults', async () => {
    const options = resolveOptions(GOOD);
    assert.equal(options.serviceUrl, 'https://tracker.example.com');
    assert.equal(options.shop, 'vendure');
    assert.equal(options.runIn, 'worker');
    assert.equal(options.leaseMs, 3 * options.timeoutMs);
    assert.equal(await options.readyWhen({ toState: 'PaymentSettled' } as never), true);
    assert.equal(await options.readyWhen({ toState: 'PaymentAuthorized' } as never), false);
});

test('a service below a path keeps it', () => {
    assert.equal(resolveOptions({ ...GOOD, serviceUrl: 'http://gate/tracker/' }).serviceUrl, 'http://gate/tracker');
});

const BAD: Array<[Record<string, unknown>, RegExp]> = [
    [{ serviceUrl: undefined }, /serviceUrl must be the address/],
    [{ serviceUrl: 'tracker.example.com:80' }, /serviceUrl must begin with http/],
    [{ serviceUrl: 'https://user:secret@tracker' }, /serviceUrl must hold no user/],
    [{ shop: 'My Shop' }, /shop must be 1 to 63/],
    [{ signingSecrets: [] }, /signingSecrets must hold one secret/],
    [{ signingSecrets: undefined }, /signingSecrets must hold one secret/],
    [{ eventSecrets: [SECRET, ''] }, /eventSecrets must hold one secret/],
    [{ eventSecrets: 'plain' }, /eventSecrets cannot be used: a secret starts with whsec_/],
    [{ readyWhen: 'PaymentSettled' }, /readyWhen must be a function/],
    [{ anyShippingMethod: 'yes' }, /anyShippingMethod must be true or false/],
    [{ runIn: 'nowhere' }, /runIn must be worker, server or both/],
    [{ timeoutMs: 1 }, /timeoutMs must be a number from 100/],
    [{ timeoutMs: NaN }, /timeoutMs must be a number/],
    [{ timeoutMs: 5_000, leaseMs: 5_000 }, /leaseMs must be longer than timeoutMs/],
    [{ retryBaseMs: 1_000, retryMaxMs: 10 }, /retryMaxMs must be a number from 1000/],
];

for (const [change, sentence] of BAD) {
    test(`refused: ${JSON.stringify(change)}`, () => {
        assert.throws(
            () => resolveOptions({ ...GOOD, ...change }),
            (error: Error) => sentence.test(error.message) && !error.message.includes(SECRET),
        );
    });
}
