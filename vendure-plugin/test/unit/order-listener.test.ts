import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { OrderStateTransitionEvent } from '@vendure/core';

import { readyByDefault } from '../../src/options';
import { OrderListener } from '../../src/outbox/order-listener';

type Transition = Pick<OrderStateTransitionEvent, 'fromState' | 'toState'> & { order: object };

/** What the listener writes of one transition; `known`: the order was announced before. */
async function written(transition: Transition, readyWhen: unknown, known = false): Promise<string[]> {
    const kinds: string[] = [];
    let handle: (event: unknown) => Promise<void> = () => Promise.reject(new Error('no handler was registered'));
    const eventBus = { registerBlockingEventHandler: (options: { handler: typeof handle }) => (handle = options.handler) };
    const outbox = {
        has: () => Promise.resolve(known),
        ask: () => Promise.resolve(kinds.push('question')),
        add: (_ctx: unknown, _id: unknown, kind: string) => Promise.resolve(kinds.push(kind)),
    };
    new OrderListener(eventBus as never, outbox as never, { readyWhen } as never).onApplicationBootstrap();
    await handle({ ctx: {}, ...transition });
    return kinds;
}

const PAID = { fromState: 'ArrangingPayment', toState: 'PaymentSettled' } as const;
const CANCELLED = { fromState: 'PaymentSettled', toState: 'Cancelled' } as const;

test('what is paid is written, but for an aggregate', async () => {
    assert.deepEqual(await written({ ...PAID, order: { type: 'Seller' } }, readyByDefault), ['ready']);
    assert.deepEqual(await written({ ...PAID, toState: 'PaymentAuthorized', order: {} }, readyByDefault), []);
    assert.deepEqual(await written({ ...PAID, order: { type: 'Aggregate' } }, readyByDefault), []);
});

test('a hook of the shop is not asked within the transaction, where it could undo a payment', async () => {
    const fails = () => {
        throw new Error('it was asked');
    };
    assert.deepEqual(await written({ ...PAID, order: { type: 'Regular' } }, fails), ['question']);
    const cart = { fromState: 'AddingItems', toState: 'ArrangingPayment' } as const;
    assert.deepEqual(await written({ ...cart, order: { type: 'Regular' } }, fails), []);
    assert.deepEqual(await written({ ...PAID, order: { type: 'Aggregate' } }, fails), []);
});

test('only what was announced is called off', async () => {
    assert.deepEqual(await written({ ...CANCELLED, order: { type: 'Regular' } }, () => true, true), ['cancelled']);
    assert.deepEqual(await written({ ...CANCELLED, order: { type: 'Regular' } }, () => true, false), []);
    assert.deepEqual(await written({ ...CANCELLED, order: { type: 'Aggregate' } }, () => true, true), []);
});
