/** How orders go when nothing fails. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { eventually } from '../support/eventually';
import { world } from '../support/harness';

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

test('an order that is cancelled in the shop is called off, and its goods go back once', async () => {
    world.driver.mode = 'manual';
    // Not of a marketplace: what Vendure allocates for an aggregate it never gives back.
    const before = await world.stock();
    const id = await world.shop.buy({ variants: [world.shop.catalogue.variantOwn] });
    await world.driver.has(id);
    await eventually('it has a fulfillment', async () => (await world.shop.order(id)).fulfillments[0]?.state === 'Pending');
    await world.shop.cancel(id);
    await eventually('the delivery is cancelled', async () => (await world.delivery(id)).status === 'CANCELLED');
    const order = await world.orderIs(id, 'Cancelled');
    await eventually('its fulfillment is too', async () => (await world.shop.order(id)).fulfillments[0]?.state === 'Cancelled');
    assert.equal(order.fulfillments.length, 1);
    assert.deepEqual(await world.stock(), before);
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

test('an order that was cancelled after its delivery failed is called off when somebody tries again', async () => {
    world.driver.mode = 'manual';
    const id = await world.shop.buy({ variants: [world.shop.catalogue.variantOwn] });
    const delivery = await world.driver.has(id);
    await world.driver.update(delivery, 'FAILED', { failure: { code: 'DELIVERY_FAILED', reason: 'nobody at home' } });
    await eventually('the failure is told', async () => (await world.shop.order(id)).customFields.driverTrackerStatus === 'FAILED');
    await world.shop.cancel(id);
    assert.equal((await world.outboxIs(id, 'cancelled', 'failed')).lastStatus, 409);
    const before = await world.stock();

    await world.tracker.api('POST', `/deliveries/${delivery.id}/retry`, { reason: 'they are back' });
    await eventually('it is called off', async () => (await world.delivery(id)).status === 'CANCELLED');
    assert.equal((await world.outboxIs(id, 'cancelled', 'sent')).lastStatus, 200);
    await eventually('the order tells', async () => (await world.shop.order(id)).customFields.driverTrackerStatus === 'CANCELLED');
    const order = await world.shop.order(id);
    assert.deepEqual(order.fulfillments.map(one => one.state), ['Cancelled']);
    assert.deepEqual(await world.stock(), before);
});
