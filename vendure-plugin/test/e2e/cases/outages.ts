/** What fails on the way to driver-tracker, and what becomes of the orders. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { eventually } from '../support/eventually';
import { sendEvent } from '../support/events';
import { world } from '../support/harness';
import { SILENT_CUSTOMER } from '../support/shop-process';
import { newSecret } from '../support/tracker';

test('orders wait while driver-tracker is down', async () => {
    await world.tracker.stop();
    const { sellerOrders } = await world.shop.buyOfBoth();
    await eventually('each was tried more than once', async () => {
        const rows = await Promise.all(sellerOrders.map(id => world.outbox(id)));
        return rows.every(([row]) => row && row.state === 'pending' && row.attempts > 1 && /ECONNREFUSED/.test(row.lastError ?? ''));
    });
    await world.tracker.start();
    for (const id of sellerOrders) {
        await world.orderIs(id, 'Delivered');
    }
});

test('an order is delivered once when the worker, and then the service, is killed in the middle of its post', async () => {
    await world.tracker.restart({ assignmentWaitMs: 30_000 });

    const first = await world.whileNobodyIsChosen(async () => {
        const id = await world.shop.buyOfA();
        await world.delivery(id);
        await world.shop.killWorker();
        const [held] = await world.outbox(id);
        assert.equal(held?.state, 'pending');
        assert.ok(held?.leaseToken, 'the post was under way');
        return id;
    });
    world.shop.startWorker();
    assert.equal((await world.outboxIs(first, 'ready', 'sent')).lastStatus, 200);

    const second = await world.whileNobodyIsChosen(async () => {
        const id = await world.shop.buyOfA();
        await world.delivery(id);
        await world.tracker.kill();
        await eventually('the answer was lost', async () => /no answer/.test((await world.outbox(id))[0]?.lastError ?? ''));
        return id;
    });
    await world.tracker.start({ assignmentWaitMs: 250 });
    assert.equal((await world.outboxIs(second, 'ready', 'sent')).lastStatus, 200);

    for (const id of [first, second]) {
        const order = await world.orderIs(id, 'Delivered');
        assert.equal(order.fulfillments.length, 1);
        const deliveries = await world.tracker.deliveriesOf(id);
        assert.equal(deliveries.length, 1);
        assert.equal(deliveries[0].attempt, 1);
    }
});

test('both secrets are rotated while orders are under way', async () => {
    world.driver.mode = 'manual';
    const { signingSecrets: oldSigning, eventSecrets: oldEvents } = world.shop.settings;
    const [signing, events] = [newSecret(), newSecret()];

    // Each side is first taught to take the new secret beside the old one; then the other side uses it.
    const before = await world.shop.buyOfA();
    await world.driver.has(before);
    await world.tracker.restart({ webhookSecrets: [...oldSigning, signing] });
    const between = await world.shop.buyOfA();
    await world.driver.has(between);

    // While the shop is away things go on; it hears of them when it is back.
    const restarted = world.shop.restart({ signingSecrets: [signing], eventSecrets: [...oldEvents, events] });
    await world.driver.update(await world.driver.has(before), 'PICKED_UP');
    await world.driver.update(await world.driver.has(before), 'DELIVERED');
    await restarted;
    await world.orderIs(before, 'Delivered');
    await world.tracker.restart({ webhookSecrets: [signing], eventsSecrets: [events] });
    world.driver.resume();
    const later = await world.shop.buyOfA();

    for (const id of [between, later]) {
        await world.orderIs(id, 'Delivered');
    }
    const { items: dead } = await world.tracker.api('GET', '/outbound-events?state=dead');
    assert.deepEqual(dead, []);
    const answer = await sendEvent(world, { sellerOrderId: later, deliveryId: 'forged', sequence: 1 }, [newSecret()]);
    assert.equal(answer.status, 401);
});

test('an order that is cancelled before it was posted is not posted, and called off all the same', async () => {
    await world.tracker.stop();
    const id = await world.shop.buyOfA();
    await world.shop.cancel(id);
    await world.outboxIs(id, 'ready', 'skipped');
    await world.tracker.start();
    assert.equal((await world.outboxIs(id, 'cancelled', 'sent')).lastStatus, 202);
    assert.deepEqual(await world.tracker.deliveriesOf(id), []);
});

test('a hook that never ends holds up its own order alone', async () => {
    const silent = await world.shop.buyOfA({ lastName: SILENT_CUSTOMER });
    await eventually('its hook is under way', async () => Boolean((await world.outbox(silent))[0]?.leaseToken));
    const other = await world.shop.buyOfA();
    await world.orderIs(other, 'Delivered');
    await eventually('it is given up for now', async () => /took too long/.test((await world.outbox(silent))[0]?.lastError ?? ''));
    await world.shop.cancel(silent);
    await world.outboxIs(silent, 'ready', 'skipped');
    assert.deepEqual(await world.tracker.deliveriesOf(silent), []);
});

test('what was sent or brought by other means is not posted', async () => {
    await world.tracker.stop();
    const id = await world.shop.buy({ variants: [world.shop.catalogue.variantOwn] });
    const { lines } = await world.shop.order(id);
    const input = {
        lines: lines.map(line => ({ orderLineId: line.id, quantity: line.quantity })),
        handler: { code: 'manual-fulfillment', arguments: [{ name: 'method', value: 'by foot' }, { name: 'trackingCode', value: '' }] },
    };
    const { admin } = world.shop;
    const made = '{ ... on Fulfillment { id } ... on ErrorResult { errorCode message } }';
    const { id: fulfillment } = await admin.mutate(
        `mutation ($input: FulfillOrderInput!) { addFulfillmentToOrder(input: $input) ${made} }`,
        { input },
    );
    await admin.mutate(`mutation ($id: ID!) { transitionFulfillmentToState(id: $id, state: "Shipped") ${made} }`, { id: fulfillment });
    await world.tracker.start();
    assert.match((await world.outboxIs(id, 'ready', 'skipped')).lastError ?? '', /was Shipped before it was sent/);
    assert.deepEqual(await world.tracker.deliveriesOf(id), []);
});
