// Heartbeats and orders continue during an outage of Redis. The caller of this script kills Redis and restarts it empty;
// `make load` does that. No order is refused, every heartbeat is acknowledged, and no driver loses the connection.

import { holdFleet } from './lib/run.js';
import { DRIVERS, fleetScenario, number, shopScenario } from './lib/settings.js';
import { postOrder } from './lib/shop.js';
import { ORDERS, PROTOCOL, TREND_STATS, UNDISTURBED, times } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 90);
const RAMP = SECONDS / 6;
const LAST = Math.max(15, SECONDS / 5);

export const options = {
  scenarios: {
    fleet: fleetScenario(SECONDS),
    shop: shopScenario({
      perSecond: number('ORDER_RATE', Math.min(15, DRIVERS / 30)),
      startSeconds: RAMP,
      seconds: SECONDS - RAMP - LAST,
    }),
  },
  summaryTrendStats: TREND_STATS,
  thresholds: Object.assign({}, PROTOCOL, UNDISTURBED, ORDERS, {
    order_retries: ['count==0'],
    heartbeat_ack_ms: times(100, 1500),
    webhook_ms: times(250, 1500),
    assignment_ms: times(500, 4000),
  }),
};

export function fleet() {
  holdFleet({ seconds: SECONDS, rampSeconds: RAMP * 0.8 });
}

export function shop() {
  postOrder();
}
