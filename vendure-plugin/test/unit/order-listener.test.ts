import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { OrderStateTransitionEvent } from '@vendure/core';

import { OrderListener } from '../../src/outbox/order-listener';

type Transition = Pick<OrderStateTransitionEvent, 'fromState' | 'toState'> & { order: object };

/** What the listener writes of one transition; `known`: the order was announced before. */
async function written(transition: Transition, readyWhen: () => boolean, known = false): Promise<string[]> {
    const kinds: string[] = [];
    let handle: (event: unknown) => Promise<void> = () => Promise.reject(new Error('no handler was registered'));
    const eventBus = { registerBlockingEventHandler: (options: { handler: typeof handle }) => (handle = options.handler) };
    const outbox = {
        has: () => Promise.resolve(known),
        add: (_ctx: unknown, _id: unknown, kind: string) => Promise.resolve(kinds.push(kind)),
    };
    new OrderListener(eventBus as never, outbox as never, { readyWhen } as never).onApplicationBootstrap();
    await handle({ ctx: {}, ...transition });
    return kinds;
}

const PAID = { fromState: 'ArrangingPayment', toState: 'PaymentSettled' } as const;
const CANCELLED = { fromState: 'PaymentSettled', toState: 'Cancelled' } as const;

test('what readyWhen says is written, but for an aggregate', async () => {
    assert.deepEqual(await written({ ...PAID, order: { type: 'Seller' } }, () => true), ['ready']);
    assert.deepEqual(await written({ ...PAID, order: { type: 'Seller' } }, () => false), []);
    assert.deepEqual(await written({ ...PAID, order: { type: 'Aggregate' } }, () => true), []);
});

test('a hook that throws undoes no payment', async () => {
    const fails = () => {
        throw new Error('the hook is broken');
    };
    assert.deepEqual(await written({ ...PAID, order: { type: 'Regular', code: 'T3XK' } }, fails), []);
});

test('only what was announced is called off', async () => {
    assert.deepEqual(await written({ ...CANCELLED, order: { type: 'Regular' } }, () => true, true), ['cancelled']);
    assert.deepEqual(await written({ ...CANCELLED, order: { type: 'Regular' } }, () => true, false), []);
    assert.deepEqual(await written({ ...CANCELLED, order: { type: 'Aggregate' } }, () => true, true), []);
});
