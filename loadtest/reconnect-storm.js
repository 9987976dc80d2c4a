// Every app loses its connection at one moment and reconnects by the protocol: after a random wait of up to one second, which
// doubles with each failure. `make load` also kills the node later and restarts it at once.

import { holdFleet } from './lib/run.js';
import { fleetScenario, number } from './lib/settings.js';
import { PROTOCOL, TREND_STATS, times, within } from './lib/thresholds.js';

const SECONDS = number('SECONDS', 90);

export const options = {
  scenarios: { fleet: fleetScenario(SECONDS) },
  summaryTrendStats: TREND_STATS,
  thresholds: Object.assign({}, PROTOCOL, {
    // A dead node cannot be reached. A live node accepts every connection, because the limits are off.
    'upgrades_failed{reason:refused}': ['count==0'],
    heartbeat_ack_ms: times(50, 1000),
    away_ms: [`p(99)<${within(15000)}`],
  }),
};

export function fleet() {
  holdFleet({
    seconds: SECONDS,
    rampSeconds: SECONDS / 6,
    world: { closesExpected: () => true },
    moments: [[SECONDS * 0.35, (apps) => apps.forEach((app) => app.cut())]],
  });
}
