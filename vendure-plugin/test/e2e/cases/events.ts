/** Events that come twice, late, never, or at a bad moment. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { Client } from 'pg';

import { eventually } from '../support/eventually';
import { sendEvent } from '../support/events';
import { world } from '../support/harness';

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
    const trackingUrl = 'https://tracker.example.com/track/abc';
    const delivered = {
        sellerOrderId: id,
        deliveryId,
        event: 'DELIVERY_DELIVERED_V1',
        status: 'DELIVERED',
        sequence: 500,
        trackingUrl,
        driver: { name: 'Chitra', phone: '+91 80 5550133' },
    };
    const answers = await Promise.all([1, 2, 3].map(() => sendEvent(world, delivered, eventSecrets)));
    assert.deepEqual(answers.map(answer => answer.body.outcome).sort(), ['applied', 'stale', 'stale']);
    const order = await world.shop.order(id);
    assert.equal(order.state, 'Delivered');
    assert.equal(order.fulfillments.length, 1);
    assert.equal(order.customFields.driverTrackerTrackingUrl, trackingUrl);
    assert.equal(order.customFields.driverTrackerDriver, 'Chitra, +91 80 5550133');
    assert.equal(order.fulfillments[0]?.trackingCode, trackingUrl);
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

test('a body that is too large or compressed is refused as such', async () => {
    const post = async (body: Buffer, headers: Record<string, string>) =>
        (await fetch(`${world.shop.url}/driver-tracker/events`, { method: 'POST', body, headers })).status;
    assert.equal(await post(Buffer.alloc(300_000, 'x'), {}), 413);
    assert.equal(await post(gzipSync('{}'), { 'content-encoding': 'gzip' }), 415);
});

/** Cancels an order. While `work` lasts its transaction has changed the stock, and not the order. */
async function whileBeingCancelled(id: string, work: () => Promise<void>): Promise<void> {
    const { database } = world;
    const hold = new Client(world.shop.settings.databaseUrl.href);
    await hold.connect();
    await hold.query('SELECT pg_advisory_lock(4711)');
    await database.query(`CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$`);
    await database.query(`CREATE TRIGGER pause BEFORE UPDATE ON "order" FOR EACH ROW WHEN (NEW.state = 'Cancelled') EXECUTE FUNCTION pause()`);
    try {
        const cancelled = world.shop.cancel(id);
        await eventually('it is about to be cancelled', async () => {
            const { rows } = await database.query(`SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`);
            return rows.length > 0;
        });
        await work();
        await hold.query('SELECT pg_advisory_unlock(4711)');
        await cancelled;
    } finally {
        await hold.end();
        await database.query('DROP FUNCTION pause CASCADE');
    }
}

test('an event beside a cancellation neither undoes it nor moves stock a second time', async () => {
    await world.driver.setDuty(false);
    const before = await world.stock();
    const id = await world.shop.buy({ variants: [world.shop.catalogue.variantOwn] });
    const { id: deliveryId } = await world.delivery(id);
    const assigned = { sellerOrderId: id, deliveryId, event: 'DELIVERY_ASSIGNED_V1', sequence: 500, driver: { name: 'Chitra' } };
    const send = () => sendEvent(world, assigned, world.shop.settings.eventSecrets);
    let answer: ReturnType<typeof send> | undefined;
    await whileBeingCancelled(id, async () => {
        answer = send();
        await eventually('it waits', async () => {
            const { rows } = await world.database.query(`SELECT 1 FROM pg_locks WHERE locktype <> 'advisory' AND NOT granted`);
            return rows.length > 0;
        });
    });
    assert.deepEqual([(await answer)?.status, (await world.shop.order(id)).state], [200, 'Cancelled']);
    assert.deepEqual((await world.shop.order(id)).fulfillments, []);
    assert.deepEqual(await world.stock(), before);
});

test('a new delivery of an order takes over the fulfillment that an earlier one left pending', async () => {
    await world.driver.setDuty(false);
    const id = await world.shop.buyOfA();
    const { id: deliveryId } = await world.delivery(id);
    const send = (event: object) => sendEvent(world, { sellerOrderId: id, ...event }, world.shop.settings.eventSecrets);
    assert.equal((await send({ deliveryId, event: 'DELIVERY_ASSIGNED_V1', sequence: 500 })).status, 200);
    const [fulfillment] = (await world.shop.order(id)).fulfillments;
    const again = { deliveryId: 'made-after-a-restore', event: 'DELIVERY_DELIVERED_V1', status: 'DELIVERED', sequence: 5 };
    assert.equal((await send(again)).status, 200);
    const order = await world.shop.order(id);
    assert.deepEqual([order.state, order.fulfillments.map(one => one.id)], ['Delivered', [fulfillment?.id]]);
    await world.tracker.api('POST', `/deliveries/${deliveryId}/cancel`, { reason: 'the test is over' });
});
