// A steady mix for a long time: heartbeats, orders, and apps that lose their connections. `make soak` watches the service's
// memory during the run.

import { holdFleet } from './lib/run.js';
import { DRIVERS, fleetScenario, number, shopScenario } from './lib/settings.js';
import { postOrder } from './lib/shop.js';
import { ORDERS, ORDERS_UNDISTURBED, PROTOCOL, TREND_STATS, times } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 1200);
const RAMP = Math.min(60, SECONDS / 6);
const LAST = Math.max(15, Math.min(60, SECONDS / 10));
/** Every CUT_EVERY seconds, one driver in fifty loses the connection. */
const CUT_EVERY = 10;
const CUT_SHARE = 0.02;

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
  thresholds: Object.assign({}, PROTOCOL, ORDERS, ORDERS_UNDISTURBED, {
    unexpected_closes: ['count==0'],
    upgrades_failed: ['count==0'],
    heartbeat_ack_ms: times(50, 500),
    webhook_ms: times(150, 1000),
    assignment_ms: times(250, 3000),
  }),
};

export function fleet() {
  const moments = [];
  for (let second = RAMP + CUT_EVERY; second < SECONDS - LAST; second += CUT_EVERY) {
    moments.push([second, (apps) => apps.forEach((app) => Math.random() < CUT_SHARE && app.cut())]);
  }
  holdFleet({ seconds: SECONDS, rampSeconds: RAMP * 0.8, moments });
}

export function shop() {
  postOrder();
}
