// The measurements: k6 metrics for the thresholds, and once a second a line on the console for the plots of the report.
// The outputs of k6 itself write a line for each sample, which would load the measured machine.
//
// A latency is measured from Date.now() at the sending, in whole milliseconds, to the moment at which k6 read the frame.

import { Counter, Trend } from 'k6/metrics';

const counters = {};
for (const name of [
  'heartbeats_sent', 'heartbeats_acked', 'heartbeats_unacked', 'frame_errors', 'frame_retries', 'protocol_errors',
  'unexpected_closes', 'welcomes_missed', 'upgrades_failed', 'gave_up', 'absent_at_end', 'sent_off_duty', 'orders_accepted',
  'orders_refused', 'order_retries', 'assignments', 'commands_repeated', 'deliveries_done', 'fixes_refused',
]) {
  counters[name] = new Counter(name);
}
const trends = {};
for (const name of ['heartbeat_ack_ms', 'welcome_ms', 'away_ms', 'webhook_ms', 'assignment_ms']) {
  trends[name] = new Trend(name, true);
}

/** The figures of this VU since the last line. */
let second = {};
let connected = 0;

function add(name, value) {
  second[name] = (second[name] || 0) + value;
}

/** Counts an event. `tags` has at most one entry, such as a code, which the report lists separately. */
export function count(name, tags, by = 1) {
  counters[name].add(by, tags);
  add(name, by);
  if (tags) add(`${name}: ${Object.values(tags)[0]}`, by);
}

/** Records a duration in milliseconds. */
export function recordMs(name, ms) {
  const value = Math.max(0, ms);
  trends[name].add(value);
  const rounded = value < 100 ? Math.round(value) : Number(value.toPrecision(2));
  const histogram = (second[name] = second[name] || {});
  histogram[rounded] = (histogram[rounded] || 0) + 1;
}

/** Changes the number of connected drivers of this VU by +1 or -1. */
export function connection(change) {
  connected += change;
}

/** Writes a line for the report with the figures since the last call. */
export function writeLine(more = {}) {
  const line = Object.assign({ t: Date.now(), vu: __VU, connected }, second, more);
  second = {};
  if (__ENV.SERIES === '1') console.log(JSON.stringify(line));
}
