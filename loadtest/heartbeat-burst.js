// The drivers connect one by one. Then the fleet sends ten times as many heartbeats for a while, twice. Every heartbeat is
// acknowledged, and no driver is disconnected.

import { holdFleet } from './lib/run.js';
import { fleetScenario, number } from './lib/settings.js';
import { PROTOCOL, TREND_STATS, UNDISTURBED, times, within } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 60);
const BURST_FACTOR = 10;
/** The start and the end of each burst, as shares of the run. */
const BURSTS = [
  [0.35, 0.55],
  [0.7, 0.85],
];

export const options = {
  scenarios: { fleet: fleetScenario(SECONDS) },
  summaryTrendStats: TREND_STATS,
  thresholds: Object.assign({}, PROTOCOL, UNDISTURBED, {
    heartbeat_ack_ms: times(50, 250),
    welcome_ms: [`p(99)<${within(1000)}`],
  }),
};

export function fleet() {
  let factor = 1;
  const setFactor = (value) => (apps) => {
    factor = value;
    // An app that waits with the slow interval must send its next heartbeat within the fast one.
    if (value > 1) apps.forEach((app) => app.rescheduleHeartbeat());
  };
  holdFleet({
    seconds: SECONDS,
    rampSeconds: SECONDS / 4,
    world: { heartbeatFactor: () => factor },
    moments: BURSTS.flatMap(([from, to]) => [
      [from * SECONDS, setFactor(BURST_FACTOR)],
      [to * SECONDS, setFactor(1)],
    ]),
  });
}
