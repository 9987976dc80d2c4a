/** What operators see to, and what is found without them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { eventually } from '../support/eventually';
import { world } from '../support/harness';
import { VERBOSE_CUSTOMER } from '../support/shop-process';

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

test('an order that was never announced is found, by an operator and by itself', async () => {
    await world.driver.setDuty(false);
    const id = await world.shop.buyOfA();
    const { deliveryId } = await world.outboxIs(id, 'ready', 'sent');
    const forget = () => world.database.query('DELETE FROM driver_tracker_outbox WHERE "orderId" = $1', [id]);

    await forget();
    assert.equal((await world.shop.reconcile()).announced, 1);
    const again = await world.outboxIs(id, 'ready', 'sent');
    assert.deepEqual([again.lastStatus, again.deliveryId], [200, deliveryId]);
    assert.equal((await world.shop.reconcile()).announced, 0);

    await world.shop.killWorker();
    await forget();
    world.shop.startWorker();
    await world.outboxIs(id, 'ready', 'sent');
    await world.driver.setDuty(true);
    const order = await world.orderIs(id, 'Delivered');
    assert.equal(order.fulfillments.length, 1);
});

test('an order of which no event ever came is sent again', async () => {
    await world.driver.setDuty(false);
    const [id, calledOff] = [await world.shop.buyOfA(), await world.shop.buyOfA()];
    assert.equal((await world.outboxIs(id, 'ready', 'sent')).lastStatus, 202);
    await world.outboxIs(calledOff, 'ready', 'sent');
    await world.shop.cancel(calledOff);
    await world.outboxIs(calledOff, 'cancelled', 'sent');
    assert.equal((await world.shop.reconcile()).resent, 0);

    const sql = `UPDATE driver_tracker_outbox SET "dueAt" = $1, "addedAt" = $1`;
    await world.database.query(sql, [Date.now() - 2 * 3_600_000]);
    assert.equal((await world.shop.reconcile()).resent, 1);
    await eventually('it was sent again', async () => (await world.outbox(id))[0]?.lastStatus === 200);
    await world.driver.setDuty(true);
    await world.orderIs(id, 'Delivered');
});

test('all that is parked is retried at once', async () => {
    const [one, other] = [await world.shop.buyOfA({ at: null }), await world.shop.buyOfA({ at: null })];
    const parked = [await world.outboxIs(one, 'ready', 'failed'), await world.outboxIs(other, 'ready', 'failed')];
    await world.database.query('UPDATE driver_tracker_outbox SET "lastError" = $1 WHERE state = $2', ['before', 'failed']);
    const { retryDriverTrackerPosts: count } = await world.shop.admin.query(`mutation { retryDriverTrackerPosts }`);
    assert.ok(count >= parked.length);
    for (const id of [one, other]) {
        await eventually('it was tried', async () => /no coordinates/.test((await world.outbox(id))[0]?.lastError ?? ''));
    }
});
