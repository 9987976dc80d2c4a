/** Orders and their entries in the outbox: never one without the other. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { world } from '../support/harness';

/** Has PostgreSQL refuse whatever `trigger` stands for, while `work` is done. */
async function whileRefused(trigger: string, table: string, work: () => Promise<void>): Promise<void> {
    const { database } = world;
    await database.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$`);
    await database.query(`CREATE ${trigger} ON ${table} FOR EACH ROW EXECUTE FUNCTION refuse()`);
    try {
        await work();
    } finally {
        await database.query('DROP FUNCTION refuse CASCADE');
    }
}

test('an order whose entry cannot be written is not paid', async () => {
    const order = await world.shop.checkOut({ variants: [world.shop.catalogue.variantOwn] });
    await whileRefused('TRIGGER refused BEFORE INSERT', 'driver_tracker_outbox', async () => {
        await assert.rejects(order.pay());
    });
    assert.equal((await world.shop.order(order.id)).state, 'ArrangingPayment');
    await order.pay();
    await world.orderIs(order.id, 'Delivered');
});

test('an order whose transaction fails at the very end leaves no entry', async () => {
    const order = await world.shop.checkOut({ variants: [world.shop.catalogue.variantOwn] });
    // A payment is written in that transaction, and this is only looked at when it commits.
    const atCommit = 'CONSTRAINT TRIGGER refused AFTER INSERT';
    await whileRefused(atCommit, 'payment DEFERRABLE INITIALLY DEFERRED', async () => {
        await assert.rejects(order.pay());
    });
    assert.equal((await world.shop.order(order.id)).state, 'ArrangingPayment');
    assert.deepEqual(await world.outbox(order.id), []);
});
