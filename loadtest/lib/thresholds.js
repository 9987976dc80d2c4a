// The thresholds of the scenarios. A crossed threshold fails the run: k6 ends with 99.

import { DRIVERS, QUICK } from './settings.js';

export const TREND_STATS = ['min', 'med', 'p(90)', 'p(99)', 'max'];

const NEVER = ['count==0'];
/** The welcomes that k6 itself loses (see driver.js). A service that fails to send welcomes would exceed this. */
const RARE = [`count<=${1 + DRIVERS / 1000}`];

/** The service and the apps follow the protocol, whatever fault is injected. */
export const PROTOCOL = {
  heartbeats_sent: [`count>=${DRIVERS * 2}`],
  heartbeats_unacked: NEVER, // at the end, on open connections
  frame_errors: NEVER,
  protocol_errors: NEVER,
  gave_up: NEVER, // closed by 1008, 4001 or 4002
  welcomes_missed: RARE,
  absent_at_end: NEVER,
  sent_off_duty: NEVER,
  fixes_refused: NEVER,
};

/**
 * Without a fault, no connection is lost and no request is repeated. On a busy machine an answer may take too long, and the
 * app then repeats the request, as the protocol says. The ten-second form tolerates that.
 */
export const UNDISTURBED = QUICK
  ? { unexpected_closes: NEVER }
  : { unexpected_closes: NEVER, upgrades_failed: NEVER, frame_retries: NEVER };

/** Orders are accepted and reach a driver. */
export const ORDERS = {
  orders_accepted: ['count>0'],
  orders_refused: NEVER,
  assignments: ['count>0'],
  deliveries_done: ['count>0'],
};

/** Without a fault, orders are accepted at the first attempt and at the rate at which they are posted. */
export const ORDERS_UNDISTURBED = {
  order_retries: NEVER,
  dropped_iterations: NEVER, // a dropped iteration means that no VU was free, because the answers took too long
};

/** Returns a time threshold in milliseconds: `usual`, or a very generous one in the ten-second form. */
export function within(usual) {
  return QUICK ? Math.max(usual * 20, 5000) : usual;
}

/** Returns the thresholds of a trend for the median and the 99th percentile. */
export function times(p50, p99) {
  return [`p(50)<${within(p50)}`, `p(99)<${within(p99)}`];
}
