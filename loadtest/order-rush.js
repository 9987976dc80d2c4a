// A shop posts signed orders in a steady stream while the drivers move, accept their assignments and report every stage.
// At the end every order is delivered.

import { holdFleet } from './lib/run.js';
import { DRIVERS, fleetScenario, number, shopScenario } from './lib/settings.js';
import { postOrder } from './lib/shop.js';
import { ORDERS, ORDERS_UNDISTURBED, PROTOCOL, TREND_STATS, UNDISTURBED, times } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 60);
const RAMP = SECONDS / 6;
/** The seconds in which the last orders are delivered. */
const LAST = Math.max(15, SECONDS / 5);

export const options = {
  scenarios: {
    fleet: fleetScenario(SECONDS),
    shop: shopScenario({
      perSecond: number('ORDER_RATE', Math.min(40, DRIVERS / 12)),
      startSeconds: RAMP,
      seconds: SECONDS - RAMP - LAST,
    }),
  },
  summaryTrendStats: TREND_STATS,
  thresholds: Object.assign({}, PROTOCOL, UNDISTURBED, ORDERS, ORDERS_UNDISTURBED, {
    heartbeat_ack_ms: times(50, 250),
    webhook_ms: times(150, 1000),
    assignment_ms: times(250, 1500),
  }),
};

export function fleet() {
  holdFleet({ seconds: SECONDS, rampSeconds: RAMP * 0.8 });
}

export function shop() {
  postOrder();
}
