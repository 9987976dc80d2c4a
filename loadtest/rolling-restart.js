// Two nodes behind a balancer. The whole fleet is on the first; when that one is told to end, every app obeys its
// `reconnect` frame and comes back on the other, and the orders go on. The nodes are restarted by whoever runs this:
// `make soak` does, one after the other, and checks afterwards that nobody was taken off duty and no order was lost.

import { holdFleet } from './lib/run.js';
import { DRIVERS, fleetScenario, number, shopScenario } from './lib/settings.js';
import { postOrder } from './lib/shop.js';
import { ORDERS, PROTOCOL, TREND_STATS, times } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 360);
/** No more than a hundred new connections a second: it is the restart that is looked at. */
const RAMP = Math.max(SECONDS / 6, DRIVERS / 80);
const LAST = Math.max(15, SECONDS / 8);

export const options = {
  scenarios: {
    fleet: fleetScenario(SECONDS),
    shop: shopScenario({
      perSecond: number('ORDER_RATE', 10),
      startSeconds: RAMP,
      seconds: SECONDS - RAMP - LAST,
    }),
  },
  summaryTrendStats: TREND_STATS,
  thresholds: Object.assign({}, PROTOCOL, ORDERS, {
    // A close that `reconnect` announced is none of these.
    unexpected_closes: ['count==0'],
    upgrades_failed: ['count==0'],
    heartbeat_ack_ms: times(100, 1500),
    away_ms: ['p(99)<5000'],
    assignment_ms: times(500, 6000),
  }),
};

export function fleet() {
  holdFleet({ seconds: SECONDS, rampSeconds: RAMP * 0.8 });
}

export function shop() {
  postOrder();
}
