/** A shop on Vendure, driver-tracker and a driver, all of them real: what happens to orders, and when something fails. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { eventually } from './support/eventually';
import { sendEvent } from './support/events';
import { VERBOSE_CUSTOMER } from './support/shop-process';
import { newSecret } from './support/tracker';
import { World } from './support/world';

let world: World;

before(async () => {
    world = await World.start();
});

after(async () => {
    await world?.stop();
});

/** A test that failed halfway must not decide those after it. */
afterEach(async () => {
    for (const driver of world?.drivers ?? []) {
        driver.resume();
        await driver.setDuty(driver === world.driver);
    }
});

test('both orders of a marketplace purchase are delivered, the aggregate never', async () => {
    const { aggregate, sellerOrders } = await world.shop.buyOfBoth();
    assert.equal(sellerOrders.length, 2);
    for (const id of sellerOrders) {
        const order = await world.orderIs(id, 'Delivered');
        assert.equal(order.type, 'Seller');
        assert.equal(order.fulfillments.length, 1);
        const [fulfillment] = order.fulfillments;
        assert.equal(fulfillment?.method, 'Driver: Asha');
        assert.equal(order.customFields.driverTrackerStatus, 'DELIVERED');
        assert.match(order.customFields.driverTrackerDriver ?? '', /^Asha, \+91/);
        assert.equal((await world.tracker.deliveriesOf(id)).length, 1);
    }
    assert.equal((await world.outboxIs(aggregate, 'ready', 'skipped')).attempts, 1);
    assert.deepEqual(await world.tracker.deliveriesOf(aggregate), []);
});

test('a regular order is fetched at the shop itself', async () => {
    const id = await world.shop.buy({ variants: [world.shop.catalogue.variantOwn] });
    const order = await world.orderIs(id, 'Delivered');
    assert.equal(order.type, 'Regular');
    const [delivery] = await world.tracker.deliveriesOf(id);
    assert.equal(delivery.pickup.address, 'The shop itself');
    assert.equal(delivery.drop.contactName, 'Meera Rao');
    assert.deepEqual(delivery.metadata, { code: order.code });
});

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
    await world.driver.setDuty(false);
    // With nobody on duty the service commits at once, and keeps its answer back for this long.
    await world.tracker.restart({ assignmentWaitMs: 30_000 });

    const first = await world.shop.buyOfA();
    await world.delivery(first);
    await world.shop.killWorker();
    const [held] = await world.outbox(first);
    assert.equal(held?.state, 'pending');
    assert.ok(held?.leaseToken, 'the post was under way');
    await world.shop.startWorker();
    assert.equal((await world.outboxIs(first, 'ready', 'sent')).lastStatus, 200);

    const second = await world.shop.buyOfA();
    await world.delivery(second);
    await world.tracker.kill();
    await eventually('the answer was lost', async () => /no answer/.test((await world.outbox(second))[0]?.lastError ?? ''));
    await world.tracker.start({ assignmentWaitMs: 250 });
    assert.equal((await world.outboxIs(second, 'ready', 'sent')).lastStatus, 200);

    await world.driver.setDuty(true);
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

    const before = await world.shop.buyOfA();
    await world.driver.has(before);
    await world.tracker.restart({
        webhookSecrets: [...oldSigning, signing],
        eventsSecrets: [...oldEvents, events],
    });
    const between = await world.shop.buyOfA();
    await world.driver.has(between);

    // While the shop is away things go on; it hears of them when it is back.
    const restarted = world.shop.restart({ signingSecrets: [signing], eventSecrets: [events] });
    await world.driver.update(await world.driver.has(before), 'PICKED_UP');
    await world.driver.update(await world.driver.has(before), 'DELIVERED');
    await restarted;
    await world.tracker.restart({ webhookSecrets: [signing], eventsSecrets: [events] });
    world.driver.resume();
    const later = await world.shop.buyOfA();

    for (const id of [before, between, later]) {
        await world.orderIs(id, 'Delivered');
    }
    const { items: dead } = await world.tracker.api('GET', '/outbound-events?state=dead');
    assert.deepEqual(dead, []);
    const answer = await sendEvent(world, { sellerOrderId: later, deliveryId: 'forged', sequence: 1 }, oldEvents);
    assert.equal(answer.status, 401);
});

test('events that come twice, late, or for nobody change nothing', async () => {
    const id = await world.shop.buyOfA();
    const done = await world.orderIs(id, 'Delivered');
    const [delivery] = await world.tracker.deliveriesOf(id);
    const { items: events } = await world.tracker.api('GET', `/outbound-events?deliveryId=${delivery.id}`);
    assert.ok(events.length >= 3);
    for (const event of events) {
        await world.tracker.api('POST', `/outbound-events/${event.id}/replay`);
    }
    await eventually('each was posted twice', async () => {
        const { items } = await world.tracker.api('GET', `/outbound-events?deliveryId=${delivery.id}`);
        // eslint-disable-next-line @typescript-eslint/no-explicit-any
        return items.every((event: any) => event.state === 'delivered' && event.attempts.length >= 2);
    });
    assert.deepEqual(await world.shop.order(id), done);

    const { eventSecrets } = world.shop.settings;
    const known = { sellerOrderId: id, deliveryId: delivery.id };
    const send = (event: object, body?: string) => sendEvent(world, event, eventSecrets, body);
    assert.deepEqual(await send({ ...known, event: 'DELIVERY_TELEPORTED_V7', sequence: 1_000, news: 1 }), {
        status: 200,
        body: { outcome: 'applied' },
    });
    assert.deepEqual(await send({ ...known, event: 'DELIVERY_CANCELLED_V1', status: 'CANCELLED', sequence: 999 }), {
        status: 200,
        body: { outcome: 'stale' },
    });
    assert.equal((await send({ ...known, sequence: 1_001, shop: 'other' })).status, 422);
    assert.equal((await send({ ...known, sequence: 1_001, sellerOrderId: '99999999' })).status, 422);
    assert.equal((await send({ ...known, sequence: 1_001, sellerOrderId: 'not-an-id' })).status, 422);
    assert.equal((await send({ ...known, sequence: 0 })).status, 422);
    assert.equal((await send({}, 'not JSON')).status, 400);
    assert.deepEqual(await world.shop.order(id), done);
});

test('steps that were never announced are made up for', async () => {
    await world.driver.setDuty(false);
    const id = await world.shop.buyOfA();
    const { id: deliveryId } = await world.delivery(id);
    const { eventSecrets } = world.shop.settings;
    const delivered = { sellerOrderId: id, deliveryId, event: 'DELIVERY_DELIVERED_V1', status: 'DELIVERED', sequence: 500 };
    const answers = await Promise.all([1, 2, 3].map(() => sendEvent(world, delivered, eventSecrets)));
    assert.deepEqual(answers.map(answer => answer.body.outcome).sort(), ['applied', 'stale', 'stale']);
    const order = await world.shop.order(id);
    assert.equal(order.state, 'Delivered');
    assert.equal(order.fulfillments.length, 1);
    const steps = order.history.items.filter(one => one.type === 'ORDER_FULFILLMENT_TRANSITION').map(one => one.data.to);
    assert.deepEqual(steps.sort(), ['Delivered', 'Pending', 'Shipped']);
    await world.tracker.api('POST', `/deliveries/${deliveryId}/cancel`, { reason: 'the test is over' });
});

test('what Vendure refuses is told in the order, and tried again until it is mended', async () => {
    await world.driver.setDuty(false);
    const id = await world.shop.buyOfA();
    const { variantA } = world.shop.catalogue;
    const onHand = await world.setStockOnHand(variantA, 0);
    await world.driver.setDuty(true);
    await eventually('the order tells what is missing', async () => {
        const { customFields } = await world.shop.order(id);
        return /no fulfillment can be created.*STOCK/.test(customFields.driverTrackerProblem ?? '');
    });
    await world.setStockOnHand(variantA, onHand);
    const order = await world.orderIs(id, 'Delivered');
    assert.equal(order.customFields.driverTrackerProblem, null);
    assert.equal(order.fulfillments.length, 1);
});

test('an order that is cancelled in the shop is called off, and its goods go back once', async () => {
    world.driver.mode = 'manual';
    const before = await world.stock();
    const id = await world.shop.buyOfA();
    await world.driver.has(id);
    await eventually('it has a fulfillment', async () => (await world.shop.order(id)).fulfillments[0]?.state === 'Pending');
    await world.shop.cancel(id);
    await eventually('the delivery is cancelled', async () => (await world.delivery(id)).status === 'CANCELLED');
    const order = await world.orderIs(id, 'Cancelled');
    await eventually('its fulfillment is too', async () => (await world.shop.order(id)).fulfillments[0]?.state === 'Cancelled');
    assert.equal(order.fulfillments.length, 1);
    assert.deepEqual(await world.stock(), before);
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

test('the next driver uses the pending fulfillment, and a new attempt after a failure makes a new one', async () => {
    world.driver.mode = 'manual';
    const id = await world.shop.buyOfA();
    const first = await world.driver.has(id);
    const fulfillment = await eventually('it has a fulfillment', async () => (await world.shop.order(id)).fulfillments[0]);

    const bina = await world.hire('Bina');
    bina.mode = 'manual';
    await world.driver.update(first, 'REJECTED', { failure: { code: 'DRIVER_REJECTED', reason: 'flat tyre' } });
    const second = await bina.has(id);
    await eventually('Bina brings it', async () => {
        const order = await world.shop.order(id);
        return order.fulfillments[0]?.method === 'Driver: Bina' && order.fulfillments;
    }).then(all => assert.deepEqual([all.length, all[0]?.id, all[0]?.state], [1, fulfillment.id, 'Pending']));

    await bina.update(second, 'PICKED_UP');
    await bina.update(second, 'FAILED', { failure: { code: 'DELIVERY_FAILED', reason: 'nobody at home' } });
    const failed = await eventually('the failure is told', async () => {
        const order = await world.shop.order(id);
        return order.customFields.driverTrackerStatus === 'FAILED' && order;
    });
    assert.match(failed.customFields.driverTrackerProblem ?? '', /DELIVERY_FAILED, nobody at home/);
    assert.ok(failed.history.items.some(one => one.type === 'ORDER_NOTE' && /nobody at home/.test(one.data.note ?? '')));
    assert.equal(failed.fulfillments[0]?.state, 'Shipped');

    bina.mode = 'auto';
    await world.tracker.api('POST', `/deliveries/${second.id}/retry`, { reason: 'they are back' });
    world.driver.resume();
    const order = await world.orderIs(id, 'Delivered');
    assert.deepEqual(order.fulfillments.map(one => one.state).sort(), ['Cancelled', 'Delivered']);
    assert.equal(order.customFields.driverTrackerProblem, null);
});

test('an order at fault is parked where an operator sees it, and retried by them', async () => {
    const nowhere = await world.shop.buyOfA({ at: null });
    const verbose = await world.shop.buyOfA({ lastName: VERBOSE_CUSTOMER });
    assert.match((await world.outboxIs(nowhere, 'ready', 'failed')).lastError ?? '', /shipping address has no coordinates/);
    const refused = await world.outboxIs(verbose, 'ready', 'failed');
    assert.equal(refused.lastStatus, 422);
    assert.match(refused.lastError ?? '', /metadata must be at most 4096 bytes/);

    const order = await eventually('the order tells', async () => {
        const shown = await world.shop.order(verbose);
        return Boolean(shown.customFields.driverTrackerProblem) && shown;
    });
    assert.match(order.customFields.driverTrackerProblem ?? '', /metadata must be/);
    assert.ok(order.history.items.some(one => one.type === 'ORDER_NOTE' && /metadata must be/.test(one.data.note ?? '')));

    const position = JSON.stringify({ lat: 12.9352, lon: 77.6245 });
    const sql = `UPDATE "order" SET "shippingAddress" = jsonb_set("shippingAddress"::jsonb, '{customFields}', $2::jsonb)::text WHERE id = $1`;
    await world.database.query(sql, [nowhere, position]);
    const failed = await world.shop.failedPosts();
    const entry = failed.find(one => one.orderId === nowhere);
    assert.equal(await world.shop.retryPost(entry?.id ?? ''), true);
    const delivered = await world.orderIs(nowhere, 'Delivered');
    assert.equal(delivered.customFields.driverTrackerProblem, null);
    assert.equal(await world.shop.retryPost(entry?.id ?? ''), false);
});

test('an order that was never announced is found', async () => {
    await world.driver.setDuty(false);
    const id = await world.shop.buyOfA();
    const { deliveryId } = await world.outboxIs(id, 'ready', 'sent');
    await world.database.query('DELETE FROM driver_tracker_outbox WHERE "orderId" = $1', [id]);
    assert.equal((await world.shop.reconcile()).announced, 1);
    const again = await world.outboxIs(id, 'ready', 'sent');
    assert.deepEqual([again.lastStatus, again.deliveryId], [200, deliveryId]);
    assert.equal((await world.shop.reconcile()).announced, 0);
    await world.driver.setDuty(true);
    await world.orderIs(id, 'Delivered');
});
