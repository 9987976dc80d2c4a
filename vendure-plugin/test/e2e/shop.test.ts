/** A shop on Vendure, driver-tracker and a driver, all of them real: what happens to orders, and when something fails. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { KNOWN_EVENTS } from '../../src/events/event';
import { faults } from '../support/schemas';
import { startWorld, world } from './support/harness';
import { readWire } from './support/wire';

before(startWorld);

after(() => world?.stop());

/** A test that failed halfway must not decide those after it. */
afterEach(() => world?.recover());

// After the hooks: a test begins as soon as it is named.
import './cases/deliveries';
import './cases/outages';
import './cases/transactions';
import './cases/events';
import './cases/operators';
import './cases/hooks';

test('all that went over the wire fits the schemas', () => {
    const wire = readWire(world.shop.wireFile).map(noted => ({ ...noted, body: JSON.parse(noted.body) as Record<string, unknown> }));
    const to = (route: string) => wire.filter(({ url }) => url.endsWith(route));
    const [posts, cancellations] = [to('/seller-order-ready'), to('/seller-order-cancelled')];
    const events = wire.filter(({ direction }) => direction === 'in');
    for (const { body } of posts.filter(({ body }) => JSON.stringify(body.metadata).length <= 4_096)) {
        assert.equal(faults('seller-order-ready', body), '', JSON.stringify(body));
    }
    for (const { body } of cancellations) {
        assert.equal(faults('seller-order-cancelled', body), '', JSON.stringify(body));
    }
    for (const { body } of events) {
        assert.equal(faults('delivery-event', body), '', JSON.stringify(body));
    }
    assert.ok(posts.length > 0 && cancellations.length > 0);
    assert.deepEqual(new Set(events.map(({ body }) => body.event)), new Set(KNOWN_EVENTS));
});
