// A VU's share of the fleet, from the first connection to the last answer.

import exec from 'k6/execution';

import { Balancer } from './balancer.js';
import { DriverApp } from './driver.js';
import { DRIVERS, FLEET, HOLDERS, NODES } from './settings.js';
import { tell } from './stats.js';

/** How long the last answers are waited for. */
const SETTLE_MS = 10000;

/**
 * Holds every HOLDERS-th driver for `seconds`. They connect one after the other within `rampSeconds`. `world` may decide
 * what `DriverApp` asks of it; `moments` are `[second, run(apps)]`: what happens to all of them at a time.
 */
export function holdFleet({ seconds, rampSeconds, world = {}, moments = [] }) {
  const share = exec.scenario.iterationInTest % HOLDERS;
  const began = exec.scenario.startTime;
  const at = (second, run) => setTimeout(run, Math.max(1, began + second * 1000 - Date.now()));

  const balancer = new Balancer(NODES);
  const rules = Object.assign(
    { balancer, pace: () => 1, stageMs: () => 1000 + 2000 * Math.random(), closesExpected: () => false },
    world
  );
  balancer.start();
  const apps = [];
  for (let index = share; index < DRIVERS; index += HOLDERS) {
    const app = new DriverApp({ id: FLEET[index].id, token: FLEET[index].token }, rules);
    apps.push(app);
    at((rampSeconds * index) / DRIVERS, () => app.start());
  }
  const telling = setInterval(() => tell(), 1000);
  moments.forEach(([second, run]) => at(second, () => run(apps)));
  at(seconds, () => settle(apps, Date.now() + SETTLE_MS, telling, balancer));
}

/** Waits for the last acks, then closes everything; with no timer and no socket left the iteration ends. */
function settle(apps, until, telling, balancer) {
  apps.forEach((app) => app.rest());
  if (Date.now() < until && !apps.every((app) => app.isSettled())) {
    setTimeout(() => settle(apps, until, telling, balancer), 100);
    return;
  }
  balancer.stop();
  clearInterval(telling);
  apps.forEach((app) => app.stop());
  tell();
}
