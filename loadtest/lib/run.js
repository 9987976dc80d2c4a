// Runs the share of the fleet that one VU holds, from the first connection to the last answer.

import exec from 'k6/execution';

import { Balancer } from './balancer.js';
import { DriverApp } from './driver.js';
import { DRIVERS, FLEET, HOLDERS, NODES } from './settings.js';
import { writeLine } from './stats.js';

/** The time limit for the last acknowledgements. */
const LAST_ACKS_WITHIN_MS = 10000;

/**
 * Holds every HOLDERS-th driver for `seconds`. The drivers connect one after the other within `rampSeconds`. `world` overrides
 * the choices that `DriverApp` takes from it. `moments` is a list of `[second, run(apps)]`: actions on all apps at a time.
 */
export function holdFleet({ seconds, rampSeconds, world = {}, moments = [] }) {
  const share = exec.scenario.iterationInTest % HOLDERS;
  const began = exec.scenario.startTime;
  const at = (second, run) => setTimeout(run, Math.max(1, began + second * 1000 - Date.now()));

  const balancer = new Balancer(NODES);
  const rules = Object.assign(
    { balancer, heartbeatFactor: () => 1, stageMs: () => 1000 + 2000 * Math.random(), closesExpected: () => false },
    world
  );
  balancer.start();
  const apps = [];
  for (let index = share; index < DRIVERS; index += HOLDERS) {
    const app = new DriverApp({ id: FLEET[index].id, token: FLEET[index].token }, rules);
    apps.push(app);
    at((rampSeconds * index) / DRIVERS, () => app.start());
  }
  const writing = setInterval(() => writeLine(), 1000);
  moments.forEach(([second, run]) => at(second, () => run(apps)));
  at(seconds, () => finish(apps, Date.now() + LAST_ACKS_WITHIN_MS, writing, balancer));
}

/** Waits for the last acknowledgements, then closes everything. The iteration ends when no timer and no socket is left. */
function finish(apps, until, writing, balancer) {
  apps.forEach((app) => app.stopHeartbeats());
  if (Date.now() < until && !apps.every((app) => app.isFullyAcknowledged())) {
    setTimeout(() => finish(apps, until, writing, balancer), 100);
    return;
  }
  balancer.stop();
  clearInterval(writing);
  apps.forEach((app) => app.stop());
  writeLine();
}
