// Two nodes behind a load balancer. The whole fleet is on the first node. When that node shuts down, every app follows its
// `reconnect` frame to the other node, and orders continue. The caller of this script restarts the nodes. `make soak`
// restarts one after the other, and checks afterwards that no driver was taken off duty and no order was lost.

import { holdFleet } from './lib/run.js';
import { DRIVERS, fleetScenario, number, shopScenario } from './lib/settings.js';
import { postOrder } from './lib/shop.js';
import { ORDERS, PROTOCOL, TREND_STATS, times } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 360);
/** At most a hundred new connections per second, because this scenario tests the restart and not the first connects. */
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
    // A close that a `reconnect` frame announced does not count here.
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
