// A driver's app, as docs/protocol.md wants it: nothing is sent before `welcome`, commands are acknowledged, also when
// they are repeated, updates are sent again until they are answered, and a lost connection is come back to as the close
// says. It says so when the service does what it must not.

import { WebSocket } from 'k6/websockets';

import { Mover } from './movement.js';
import { connection, count, took } from './stats.js';

/** After these closes an app does not come back by itself: policy, replaced, revoked. */
const FINAL_CODES = [1008, 4001, 4002];
const BACKOFF_FIRST_MS = 1000;
const BACKOFF_MOST_MS = 60000;
/**
 * An open connection without a `welcome` for so long is given up. k6 itself loses about one first frame in 20,000: it drops
 * what its reader hands over before the event loop knows that the socket is open.
 */
const WELCOME_WITHIN_MS = 5000;
/** A request that got no answer for so long is sent again. */
const ANSWER_WITHIN_MS = 15000;
/** Fixes kept while there is no connection: what one `batch` holds. */
const FIXES_KEPT = 100;
/** What follows a delivery's status. */
const NEXT = { ASSIGNED: 'PICKED_UP', PICKED_UP: 'IN_TRANSIT', IN_TRANSIT: 'DELIVERED' };

const OPEN = 1;

/** Closes a socket. One that is still connecting is closed when it is open: k6 would wait for ever otherwise. */
function hangUp(socket) {
  if (socket.readyState === OPEN) socket.close();
  else socket.onopen = () => socket.close();
}

export class DriverApp {
  /**
   * `credentials` is `{id, token}`. `world` is what the scenario decides: `balancer`; `pace()`, by which the interval of
   * heartbeats is divided; `stageMs()`, how long a stage of a delivery takes; `closesExpected()`, whether sockets are
   * being cut on purpose.
   */
  constructor(credentials, world) {
    this.credentials = credentials;
    this.world = world;
    this.mover = new Mover();
    this.socket = null;
    this.welcomed = false;
    this.leaving = false;
    this.failures = 0;
    this.seq = 0;
    this.references = 0;
    this.heartbeatIntervalMs = 5000;
    this.heartbeats = []; // sent and not acknowledged: {seq, at, fix}
    this.kept = []; // fixes that no connection took
    this.jobs = []; // deliveries in hand
    this.known = {}; // messageIds that were seen
    this.delivered = {}; // assignments that were carried out
    this.requests = {}; // not answered yet, by ref: {frame, answered}
    this.timers = {};
    this.lostAt = 0;
  }

  start() {
    this.connect();
  }

  /** Stops heartbeats; what is under way may still be answered. */
  rest() {
    this.resting = true;
    this.clear('heartbeat');
  }

  /** Whether all that was sent is answered. */
  isSettled() {
    return this.welcomed && this.heartbeats.length === 0;
  }

  /** Ends for good. The wish to work is kept: an app that is closed is not off duty. */
  stop() {
    this.leaving = true;
    Object.keys(this.timers).forEach((name) => this.clear(name));
    Object.keys(this.requests).forEach((ref) => this.forget(ref));
    count('heartbeats_unacked', undefined, this.heartbeats.length);
    if (!this.welcomed) count('absent_at_end');
    if (this.welcomed) connection(-1);
    this.welcomed = false;
    if (this.socket) hangUp(this.socket);
  }

  /** The network is gone: the app comes back by the rules, the service finds out later. */
  cut() {
    const socket = this.socket;
    if (!socket || this.leaving) return;
    this.socket = null; // what it still says is not heard any more
    hangUp(socket);
    this.gone(undefined, '', true);
  }

  // --- the connection ---

  connect() {
    this.clear('connect');
    if (this.leaving) return;
    const node = this.world.balancer.pick();
    if (node === null) {
      this.comeBack();
      return;
    }
    this.comeBackAfterMs = undefined;
    this.connectedAt = Date.now();
    const socket = new WebSocket(`${node.replace(/^http/, 'ws')}/ws/driver`, ['driver-tracker.v1'], {
      headers: { Authorization: `Bearer ${this.credentials.token}` },
      tags: { name: '/ws/driver' },
    });
    this.socket = socket;
    let failure = '';
    socket.onopen = () => {
      if (socket === this.socket) this.after('welcome', WELCOME_WITHIN_MS, () => this.giveUpWaiting());
    };
    socket.onmessage = (event) => {
      if (socket === this.socket) this.heard(JSON.parse(event.data), event.timestamp);
    };
    socket.onerror = (event) => {
      failure = event.error;
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.gone(event.code, failure);
    };
  }

  giveUpWaiting() {
    count('welcomes_missed');
    this.cut();
  }

  gone(code, failure = '', onPurpose = false) {
    const welcomed = this.welcomed;
    this.socket = null;
    this.welcomed = false;
    this.clear('welcome');
    this.clear('heartbeat');
    if (welcomed) {
      connection(-1);
      this.lostAt = Date.now();
    }
    if (this.leaving) return;
    if (!welcomed && !onPurpose && this.comeBackAfterMs === undefined) {
      // A close: PostgreSQL was out after the upgrade. "bad handshake": the service answered, and not by 101.
      const refused = failure.indexOf('bad handshake') >= 0 ? 'refused' : 'not reached';
      count('upgrades_failed', { reason: code === undefined ? refused : `closed ${code}` });
    }
    if (welcomed && !onPurpose && this.comeBackAfterMs === undefined && !this.world.closesExpected()) {
      count('unexpected_closes', { code: String(code) });
    }
    if (FINAL_CODES.indexOf(code) >= 0) {
      count('gave_up', { code: String(code) });
      return;
    }
    // What was not acknowledged was perhaps not stored: it goes with the other fixes.
    this.heartbeats.forEach((heartbeat) => this.keep(heartbeat.fix));
    this.heartbeats = [];
    this.keepFixesMeanwhile();
    this.comeBack();
  }

  /** As `reconnect` asked; else a random time, up to a limit that doubles with each failure. */
  comeBack() {
    let waitMs = this.comeBackAfterMs;
    this.comeBackAfterMs = undefined;
    if (waitMs === undefined) {
      waitMs = Math.random() * Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** this.failures);
      this.failures += 1;
    }
    this.after('connect', waitMs, () => this.connect());
  }

  // --- what the service says ---

  heard(frame, at) {
    if (!this.welcomed && frame.type !== 'welcome' && frame.type !== 'error') {
      count('protocol_errors', { what: `${frame.type} before welcome` });
    }
    switch (frame.type) {
      case 'welcome':
        return this.onWelcome(frame, at);
      case 'ack':
        return this.onAck(frame, at);
      case 'ok':
        return this.onOk(frame);
      case 'error':
        return this.onError(frame);
      case 'assignment':
        return this.onCommand(frame, () => this.onAssignment(frame.delivery, at));
      case 'assignment.cancelled':
        return this.onCommand(frame, () => this.drop((job) => job.delivery.assignmentId === frame.assignmentId));
      case 'delivery':
        return this.onCommand(frame, () => this.onChanged(frame.delivery));
      case 'status':
        if (frame.onDuty === false) count('sent_off_duty', { reason: String(frame.reason) });
        return undefined;
      case 'config':
        return this.onConfig(frame);
      case 'reconnect':
        this.comeBackAfterMs = frame.afterMs;
        return undefined;
      default:
        return undefined; // of a newer service
    }
  }

  onWelcome(frame, at) {
    this.welcomed = true;
    this.failures = 0;
    this.clear('welcome');
    connection(1);
    took('welcome_ms', at - this.connectedAt);
    if (this.lostAt) took('away_ms', at - this.lostAt);
    this.lostAt = 0;
    this.heartbeatIntervalMs = frame.heartbeatIntervalMs;
    // The whole state: what is not in it is no longer ours, what is in it and unknown is new.
    this.drop((job) => !frame.deliveries.some((held) => held.assignmentId === job.delivery.assignmentId));
    frame.deliveries.forEach((held) => this.take(held));
    // What was asked on the old connection and not answered is asked again.
    Object.keys(this.requests).forEach((ref) => this.put(ref));
    if (!frame.driver.onDuty && !this.wantsDuty) {
      this.wantsDuty = true;
      this.ask({ type: 'status', status: 'AVAILABLE' }, () => {
        this.saidDuty = true;
      });
    } else if (!frame.driver.onDuty && this.saidDuty) {
      count('sent_off_duty', { reason: 'seen in welcome' });
    }
    if (this.kept.length > 0) {
      const fixes = this.kept;
      this.kept = [];
      this.ask({ type: 'batch', fixes }, (answer) => {
        if (answer.refused.length > 0) count('fixes_refused', { code: answer.refused[0].code }, answer.refused.length);
      });
    }
    this.beat();
  }

  onAck(frame, at) {
    let acked = 0;
    while (acked < this.heartbeats.length && this.heartbeats[acked].seq <= frame.seq) {
      took('heartbeat_ack_ms', at - this.heartbeats[acked].at);
      acked += 1;
    }
    if (acked > 0) {
      this.heartbeats.splice(0, acked);
      count('heartbeats_acked', undefined, acked);
    }
  }

  onOk(frame) {
    const request = this.requests[frame.ref];
    if (!request) return;
    this.forget(frame.ref);
    request.answered(frame);
  }

  onError(frame) {
    if (frame.retryable) {
      count('frame_retries', { code: frame.code });
      if (this.requests[frame.ref]) {
        this.after(`retry ${frame.ref}`, frame.retryAfterMs || 1000, () => this.put(frame.ref));
      }
      return;
    }
    count('frame_errors', { code: frame.code });
    const request = this.requests[frame.ref];
    if (!request) return;
    this.forget(frame.ref);
    // Closed, or not ours, or in another state than we thought: the next `welcome` or command tells.
    this.drop((job) => job.delivery.assignmentId === request.frame.assignmentId);
  }

  onConfig(frame) {
    this.heartbeatIntervalMs = frame.heartbeatIntervalMs;
    this.hurry();
  }

  /** The interval has changed: the next heartbeat comes within it. */
  hurry() {
    if (this.welcomed && !this.resting) this.after('heartbeat', Math.random() * this.intervalMs(), () => this.beat());
  }

  /** A command is acknowledged each time and carried out once. */
  onCommand(frame, carryOut) {
    this.send({ type: 'ack', messageId: frame.messageId });
    if (this.known[frame.messageId]) {
      count('commands_repeated', { type: frame.type });
      return;
    }
    this.known[frame.messageId] = true;
    carryOut();
  }

  // --- deliveries ---

  onAssignment(delivery, at) {
    count('assignments');
    const sentAt = delivery.metadata && delivery.metadata.sentAt;
    if (sentAt) took('assignment_ms', at - sentAt);
    this.take(delivery);
  }

  onChanged(delivery) {
    const over = NEXT[delivery.status] === undefined;
    if (over) this.drop((job) => job.delivery.id === delivery.id);
  }

  take(delivery) {
    const known = (job) => job.delivery.assignmentId === delivery.assignmentId;
    if (this.delivered[delivery.assignmentId] || this.jobs.some(known)) return;
    const job = { delivery, status: delivery.status };
    this.jobs.push(job);
    this.work(job);
  }

  drop(isIt) {
    this.jobs.filter(isIt).forEach((job) => {
      this.clear(`stage ${job.delivery.assignmentId}`);
      Object.keys(this.requests)
        .filter((ref) => this.requests[ref].frame.assignmentId === job.delivery.assignmentId)
        .forEach((ref) => this.forget(ref));
    });
    this.jobs = this.jobs.filter((job) => !isIt(job));
  }

  /** Goes there, and says so when it is reached; the next stage begins when the service said `ok`. */
  work(job) {
    const { delivery } = job;
    const next = NEXT[job.status];
    this.mover.headFor(job.status === 'ASSIGNED' ? delivery.pickup : delivery.drop);
    this.after(`stage ${delivery.assignmentId}`, this.world.stageMs(), () => {
      const frame = {
        type: 'delivery.update',
        deliveryId: delivery.id,
        assignmentId: delivery.assignmentId,
        status: next,
        occurredAt: new Date().toISOString(),
      };
      this.ask(frame, () => {
        job.status = next;
        if (next === 'DELIVERED') {
          this.jobs = this.jobs.filter((other) => other !== job);
          this.delivered[delivery.assignmentId] = true;
          count('deliveries_done');
        } else {
          this.work(job);
        }
      });
    });
  }

  // --- what the app says ---

  beat() {
    if (this.resting) return;
    this.after('heartbeat', this.intervalMs(), () => this.beat());
    const now = Date.now();
    const fix = this.mover.fix(now);
    this.seq += 1;
    this.heartbeats.push({ seq: this.seq, at: now, fix });
    count('heartbeats_sent');
    this.send(Object.assign({ type: 'heartbeat', seq: this.seq }, fix));
  }

  /** Without a connection, the fixes are kept for a `batch`. */
  keepFixesMeanwhile() {
    this.after('heartbeat', this.intervalMs(), () => {
      if (this.welcomed || this.leaving) return;
      this.keep(this.mover.fix(Date.now()));
      this.keepFixesMeanwhile();
    });
  }

  keep(fix) {
    this.kept.push(fix);
    if (this.kept.length > FIXES_KEPT) this.kept.shift();
  }

  intervalMs() {
    return this.heartbeatIntervalMs / this.world.pace();
  }

  /** Asks, and asks again until there is an answer, over new connections too. */
  ask(frame, answered) {
    this.references += 1;
    const ref = `r${this.references}`;
    this.requests[ref] = { frame: Object.assign({ ref }, frame), answered };
    this.put(ref);
  }

  put(ref) {
    const request = this.requests[ref];
    if (!request || !this.welcomed) return;
    this.send(request.frame);
    this.after(`retry ${ref}`, ANSWER_WITHIN_MS, () => this.put(ref));
  }

  forget(ref) {
    this.clear(`retry ${ref}`);
    delete this.requests[ref];
  }

  send(frame) {
    // What cannot be sent is asked again after the next `welcome`.
    if (this.socket && this.socket.readyState === OPEN) this.socket.send(JSON.stringify(frame));
  }

  // --- time ---

  after(name, ms, run) {
    this.clear(name);
    this.timers[name] = setTimeout(() => {
      delete this.timers[name];
      run();
    }, Math.max(1, ms));
  }

  clear(name) {
    if (this.timers[name] !== undefined) clearTimeout(this.timers[name]);
    delete this.timers[name];
  }
}
