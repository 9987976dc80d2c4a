import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Need } from '../../src/outbox/need';

const line = (fulfillmentHandlerCode: string) => ({ shippingMethod: { fulfillmentHandlerCode } });
const OURS = line('driver-tracker');
const BY_HAND = line('manual-fulfillment');

/** `aggregate`: the shipping lines of the aggregate order; `state` and `heard`: what is in the database. */
function need({ any = false, aggregate = [] as object[], state = '', heard = false }): Need {
    const repository = {
        findOne: () => Promise.resolve({ shippingLines: aggregate }),
        findOneByOrFail: () => Promise.resolve({ state }),
        existsBy: () => Promise.resolve(heard),
    };
    return new Need({ rawConnection: { getRepository: () => repository } } as never, { anyShippingMethod: any });
}

test('only what is shipped by the handler of the plugin is sent', async () => {
    const why = (order: object, facts = {}) => need(facts).notByDriver(order as never);
    assert.equal(await why({ shippingLines: [BY_HAND, OURS] }), undefined);
    assert.match((await why({ shippingLines: [BY_HAND] })) ?? '', /no shipping method/);
    assert.equal(await why({ shippingLines: [BY_HAND] }, { any: true }), undefined);
    assert.match((await why({ shippingLines: [] }, { any: true })) ?? '', /no shipping/);
});

test('a seller order without shipping is shipped as its aggregate is', async () => {
    const why = (aggregate: object[]) => need({ aggregate }).notByDriver({ shippingLines: [], aggregateOrderId: 1 } as never);
    assert.equal(await why([OURS]), undefined);
    assert.match((await why([BY_HAND])) ?? '', /no shipping method/);
    assert.match((await why([])) ?? '', /no shipping/);
});

test('what was brought by hand is not sent, and what the plugin has brought may be sent twice', async () => {
    assert.equal(await need({ state: 'PaymentSettled' }).over(1), undefined);
    for (const state of ['Cancelled', 'Shipped', 'PartiallyShipped', 'Delivered', 'PartiallyDelivered']) {
        assert.match((await need({ state }).over(1)) ?? '', new RegExp(`was ${state}`));
    }
    assert.equal(await need({ state: 'Delivered', heard: true }).over(1), undefined);
    assert.match((await need({ state: 'Cancelled', heard: true }).over(1)) ?? '', /was Cancelled/);
});
