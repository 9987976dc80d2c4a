/** What a `readyWhen` of the shop's own is asked, and what it cannot hold up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { eventually } from '../support/eventually';
import { world } from '../support/harness';
import { DISPUTED_CUSTOMER, UNDECIDED_CUSTOMER } from '../support/shop-process';

const tried = (id: string, what: RegExp) =>
    eventually(`order ${id} was tried twice`, async () => {
        const [row] = await world.outbox(id);
        return row?.state === 'pending' && row.attempts >= 2 && what.test(row.lastError ?? '');
    });

test('a readyWhen of the shop is asked of whole orders, and where it fails others do not wait', async () => {
    await world.shop.restart({ ownReadyWhen: true });
    try {
        const { variantA, variantB, variantOwn } = world.shop.catalogue;
        const undecided: string[] = [];
        for (let count = 0; count < 6; count += 1) {
            undecided.push(await world.shop.buy({ variants: [variantOwn], lastName: UNDECIDED_CUSTOMER }));
        }
        const aggregate = await world.shop.buy({ variants: [variantA, variantB], lastName: DISPUTED_CUSTOMER });
        const pair = (await world.shop.order(aggregate)).sellerOrders?.map(one => one.id) ?? [];
        await world.orderIs(await world.shop.buy({ variants: [variantOwn] }), 'Delivered');
        const sent = await eventually('the order of the other seller is sent', async () => {
            const rows = await Promise.all(pair.map(id => world.outbox(id)));
            return pair.find((_, index) => rows[index]?.[0]?.state === 'sent');
        });
        await world.orderIs(sent, 'Delivered');
        await tried(pair.find(id => id !== sent) ?? '', /readyWhen gave no answer: the hook is broken/);
        await tried(undecided[0] as string, /readyWhen took too long/);
        assert.deepEqual(await world.tracker.deliveriesOf(undecided[0] as string), []);
    } finally {
        await world.shop.restart({ ownReadyWhen: false });
        // These would be asked about for three days, and be found at the next start.
        await world.database.query('UPDATE driver_tracker_outbox SET state = $1 WHERE asked IS NOT NULL', ['skipped']);
    }
});
