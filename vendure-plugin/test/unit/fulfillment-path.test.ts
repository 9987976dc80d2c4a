import assert from 'node:assert/strict';
import { test } from 'node:test';

import { reuse, unfulfilledLines, wayTo } from '../../src/events/fulfillment-path';

test('states that no event announced are passed', () => {
    assert.deepEqual(wayTo('Pending', 'Delivered'), ['Shipped', 'Delivered']);
    assert.deepEqual(wayTo('Created', 'Shipped'), ['Pending', 'Shipped']);
});

test('a fulfillment never goes back', () => {
    assert.deepEqual(wayTo('Shipped', 'Shipped'), []);
    assert.deepEqual(wayTo('Delivered', 'Shipped'), []);
});

test('from elsewhere there is no way', () => {
    assert.equal(wayTo('Cancelled', 'Shipped'), undefined);
    assert.equal(wayTo('AwaitingDrone', 'Shipped'), undefined);
});

test('the pending fulfillment of an earlier driver is used by the next', () => {
    assert.equal(reuse('Pending', false), 'keep');
    assert.equal(reuse('Pending', true), 'keep');
    assert.equal(reuse('Shipped', false), 'keep');
});

test('goods that left and came back leave under a new one', () => {
    assert.equal(reuse('Shipped', true), 'replace');
    assert.equal(reuse('Delivered', true), 'keep');
    assert.equal(reuse('Cancelled', true), 'create');
    assert.equal(reuse(undefined, false), 'create');
});

test('only what is not fulfilled yet is', () => {
    const lines = [{ id: 1, quantity: 3 }, { id: 2, quantity: 1 }, { id: 3, quantity: 0 }];
    const fulfilled = [{ orderLineId: 1, quantity: 1 }, { orderLineId: 1, quantity: 1 }, { orderLineId: 2, quantity: 1 }];
    assert.deepEqual(unfulfilledLines(lines, fulfilled), [{ orderLineId: 1, quantity: 1 }]);
});
