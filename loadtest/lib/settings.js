// The parameters of a run. `make load` sets all of them in the environment. For a run by hand, STATE and FLEET name the full
// paths of the two files that `driver-tracker dev --prepare N` writes.

import { SharedArray } from 'k6/data';

const state = __ENV.STATE ? JSON.parse(open(__ENV.STATE)) : {};

/** Returns a number from the environment, or the default of the scenario. */
export function number(name, defaultValue) {
  const value = __ENV[name] === undefined || __ENV[name] === '' ? defaultValue : Number(__ENV[name]);
  if (!Number.isFinite(value)) throw new Error(`${name} must be a number`);
  return value;
}

/** The base URLs of the nodes, in order of preference. */
export const NODES = (__ENV.NODES || state.httpUrl || 'http://127.0.0.1:8080').split(',');

/** The secret that signs orders: `whsec_…` */
export const WEBHOOK_SECRET = __ENV.WEBHOOK_SECRET || state.webhookSecret || '';

/** The ten-second form: the thresholds of correctness stay strict, the time thresholds are very generous. */
export const QUICK = __ENV.QUICK === '1';

/** The drivers as `{id, token}`. They are read once and shared by all VUs. */
export const FLEET = new SharedArray('fleet', () => {
  if (!__ENV.FLEET) throw new Error('FLEET must name the file of drivers; see docs/loadtest.md');
  return JSON.parse(open(__ENV.FLEET));
});

/** The number of drivers that take part. */
export const DRIVERS = Math.min(number('DRIVERS', FLEET.length), FLEET.length);

/** The number of VUs that hold the sockets. A VU is one JavaScript thread with many drivers. */
export const HOLDERS = Math.max(1, Math.min(number('HOLDERS', 4), DRIVERS));

/** Returns the scenario that holds the fleet. Each VU runs one iteration until the end of the test. */
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

/** Returns the scenario of a shop that posts at a steady rate, however long the answers take. */
export function shopScenario({ perSecond, startSeconds, seconds }) {
  return {
    executor: 'constant-arrival-rate',
    rate: Math.max(1, Math.round(perSecond * 10)),
    timeUnit: '10s',
    startTime: `${startSeconds}s`,
    duration: `${Math.max(1, seconds)}s`,
    // An order occupies a VU until it is answered, so the VUs limit how many seconds of orders are in flight.
    preAllocatedVUs: Math.max(10, Math.ceil(perSecond * 2)),
    maxVUs: Math.max(20, Math.ceil(perSecond * 6)),
    gracefulStop: '45s',
    exec: 'shop',
  };
}
