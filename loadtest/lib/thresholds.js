// What every scenario demands. A threshold that is crossed fails the run: k6 ends with 99.

import { DRIVERS, QUICK } from './settings.js';

export const TREND_STATS = ['min', 'med', 'p(90)', 'p(99)', 'max'];

const NEVER = ['count==0'];
/** What k6 loses by itself (see driver.js); a service that forgot its welcomes would come to more. */
const RARE = [`count<=${1 + DRIVERS / 1000}`];

/** That the service and the apps keep to the protocol, whatever is broken meanwhile. */
export const PROTOCOL = {
  heartbeats_sent: [`count>=${DRIVERS * 2}`],
  heartbeats_unacked: NEVER, // at the end, on connections that live
  frame_errors: NEVER,
  protocol_errors: NEVER,
  gave_up: NEVER, // closed by 1008, 4001 or 4002
  welcomes_missed: RARE,
  absent_at_end: NEVER,
  sent_off_duty: NEVER,
  fixes_refused: NEVER,
};

/**
 * That nobody loses a connection and nothing has to be asked twice, where nothing is broken. On a machine that is busy with
 * other things an answer may take too long and be asked for again, as the protocol says: the ten-second form bears that.
 */
export const UNDISTURBED = QUICK
  ? { unexpected_closes: NEVER }
  : { unexpected_closes: NEVER, upgrades_failed: NEVER, frame_retries: NEVER };

/** That orders are taken and reach a driver. */
export const ORDERS = {
  orders_accepted: ['count>0'],
  orders_refused: NEVER,
  assignments: ['count>0'],
  deliveries_done: ['count>0'],
};

/** That orders are taken at the first try and as fast as they come, where nothing is broken. */
export const ORDERS_UNDISTURBED = {
  order_retries: NEVER,
  dropped_iterations: NEVER, // no VU was free: the answers took too long
};

/** A threshold of time in milliseconds: `usual`, or a very generous one in the ten-second form. */
export function within(usual) {
  return QUICK ? Math.max(usual * 20, 5000) : usual;
}

/** For a trend: the median and the 99th percentile. */
export function times(p50, p99) {
  return [`p(50)<${within(p50)}`, `p(99)<${within(p99)}`];
}
