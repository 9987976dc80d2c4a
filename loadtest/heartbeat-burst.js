// The fleet comes up one by one, then sends ten times as many heartbeats for a while, twice. Every one is acknowledged,
// nobody is thrown out.

import { holdFleet } from './lib/run.js';
import { fleetScenario, number } from './lib/settings.js';
import { PROTOCOL, TREND_STATS, UNDISTURBED, times, within } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 60);
const FASTER = 10;
/** From and to, as shares of the time. */
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
  let faster = 1;
  const pace = (value) => (apps) => {
    faster = value;
    // Who would wait for a slow heartbeat speaks within the fast interval.
    if (value > 1) apps.forEach((app) => app.hurry());
  };
  holdFleet({
    seconds: SECONDS,
    rampSeconds: SECONDS / 4,
    world: { pace: () => faster },
    moments: BURSTS.flatMap(([from, to]) => [
      [from * SECONDS, pace(FASTER)],
      [to * SECONDS, pace(1)],
    ]),
  });
}
