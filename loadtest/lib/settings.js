// What a run is told. `make load` tells everything by the environment; for a run by hand, STATE and FLEET name the two
// files that `driver-tracker dev --prepare N` writes, by their full paths.

import { SharedArray } from 'k6/data';

const state = __ENV.STATE ? JSON.parse(open(__ENV.STATE)) : {};

/** A number from the environment, or what the scenario takes by default. */
export function number(name, otherwise) {
  const value = __ENV[name] === undefined || __ENV[name] === '' ? otherwise : Number(__ENV[name]);
  if (!Number.isFinite(value)) throw new Error(`${name} must be a number`);
  return value;
}

/** Base URLs of the nodes, in the order in which they are tried. */
export const NODES = (__ENV.NODES || state.httpUrl || 'http://127.0.0.1:8080').split(',');

/** Signs orders: `whsec_…` */
export const WEBHOOK_SECRET = __ENV.WEBHOOK_SECRET || state.webhookSecret || '';

/** The ten-second form: what is right is still demanded, time only in the widest sense. */
export const QUICK = __ENV.QUICK === '1';

/** The drivers, `{id, token}`: read once, shared by all VUs. */
export const FLEET = new SharedArray('fleet', () => {
  if (!__ENV.FLEET) throw new Error('FLEET must name the file of drivers: see docs/loadtest.md');
  return JSON.parse(open(__ENV.FLEET));
});

/** How many of them take part. */
export const DRIVERS = Math.min(number('DRIVERS', FLEET.length), FLEET.length);

/** How many VUs hold the sockets. A VU is one thread of JavaScript with many drivers on it. */
export const HOLDERS = Math.max(1, Math.min(number('HOLDERS', 4), DRIVERS));

/** The scenario that holds the fleet: each VU runs one iteration to the end of the test. */
export function fleetScenario(seconds) {
  return {
    executor: 'per-vu-iterations',
    vus: HOLDERS,
    iterations: 1,
    maxDuration: `${seconds + 60}s`,
    gracefulStop: '5s',
    exec: 'fleet',
  };
}

/** The scenario of a shop that posts at a steady rate, whatever the answers take. */
export function shopScenario({ perSecond, startSeconds, seconds }) {
  return {
    executor: 'constant-arrival-rate',
    rate: Math.max(1, Math.round(perSecond * 10)),
    timeUnit: '10s',
    startTime: `${startSeconds}s`,
    duration: `${Math.max(1, seconds)}s`,
    // An order occupies a VU until it is answered: so many seconds of orders may be under way.
    preAllocatedVUs: Math.max(10, Math.ceil(perSecond * 2)),
    maxVUs: Math.max(20, Math.ceil(perSecond * 6)),
    gracefulStop: '45s',
    exec: 'shop',
  };
}
