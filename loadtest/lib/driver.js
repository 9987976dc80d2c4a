// A driver's app that follows docs/protocol.md:
// - It sends nothing before `welcome`.
// - It acknowledges every command, repeats included.
// - It sends an update again until it is answered.
// - It reconnects as the close code requires.
// It counts every violation of the protocol by the service.

import { WebSocket } from 'k6/websockets';

import { Mover } from './movement.js';
import { connection, count, recordMs } from './stats.js';

/** After these close codes an app does not reconnect by itself: policy, replaced, revoked. */
const FINAL_CODES = [1008, 4001, 4002];
const BACKOFF_FIRST_MS = 1000;
const BACKOFF_MAX_MS = 60000;
/**
 * An open connection without a `welcome` for this time is closed. k6 itself loses about one first frame in 20,000: it drops
 * frames that it reads before its event loop knows that the socket is open.
 */
const WELCOME_WITHIN_MS = 5000;
/** A request without an answer for this time is sent again. */
const ANSWER_WITHIN_MS = 15000;
/** The maximum number of fixes that are stored while there is no connection: the size of one `batch`. */
const MAX_STORED_FIXES = 100;
/** The next status of a delivery. */
const NEXT = { ASSIGNED: 'PICKED_UP', PICKED_UP: 'IN_TRANSIT', IN_TRANSIT: 'DELIVERED' };

const OPEN = 1;

/** Closes a socket. A connecting socket is closed when it is open, because k6 would otherwise wait forever. */
function closeSocket(socket) {
  if (socket.readyState === OPEN) socket.close();
  else socket.onopen = () => socket.close();
}

export class DriverApp {
  /**
   * `credentials` is `{id, token}`. `world` holds the choices of the scenario: `balancer`; `heartbeatFactor()`, which divides
   * the heartbeat interval; `stageMs()`, the duration of a stage of a delivery; `closesExpected()`, whether the scenario cuts
   * sockets on purpose.
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
    this.storedFixes = []; // fixes to send with the next `batch`
    this.jobs = []; // open deliveries
    this.seenCommands = {}; // messageIds of received commands
    this.delivered = {}; // completed assignments
    this.requests = {}; // unanswered requests by ref: {frame, answered}
    this.timers = {};
    this.lostAt = 0;
  }

  start() {
    this.connect();
  }

  /** Stops heartbeats. Requests in flight may still be answered. */
  stopHeartbeats() {
    this.heartbeatsStopped = true;
    this.clear('heartbeat');
  }

  /** Returns whether every heartbeat is acknowledged. */
  isFullyAcknowledged() {
    return this.welcomed && this.heartbeats.length === 0;
  }

  /** Closes the app permanently. The driver stays on duty: closing the app does not change the duty. */
  stop() {
    this.leaving = true;
    Object.keys(this.timers).forEach((name) => this.clear(name));
    Object.keys(this.requests).forEach((ref) => this.removeRequest(ref));
    count('heartbeats_unacked', undefined, this.heartbeats.length);
    if (!this.welcomed) count('absent_at_end');
    if (this.welcomed) connection(-1);
    this.welcomed = false;
    if (this.socket) closeSocket(this.socket);
  }

  /** Simulates a lost network: the app reconnects by the protocol, and the service notices later. */
  cut() {
    const socket = this.socket;
    if (!socket || this.leaving) return;
    this.socket = null; // later frames of this socket are ignored
    closeSocket(socket);
    this.onDisconnected(undefined, '', true);
  }

  // --- the connection ---

  connect() {
    this.clear('connect');
    if (this.leaving) return;
    const node = this.world.balancer.pick();
    if (node === null) {
      this.reconnect();
      return;
    }
    this.reconnectAfterMs = undefined;
    this.connectedAt = Date.now();
    const socket = new WebSocket(`${node.replace(/^http/, 'ws')}/ws/driver`, ['driver-tracker.v1'], {
      headers: { Authorization: `Bearer ${this.credentials.token}` },
      tags: { name: '/ws/driver' },
    });
    this.socket = socket;
    let failure = '';
    socket.onopen = () => {
      if (socket === this.socket) this.after('welcome', WELCOME_WITHIN_MS, () => this.onWelcomeTimeout());
    };
    socket.onmessage = (event) => {
      if (socket === this.socket) this.onFrame(JSON.parse(event.data), event.timestamp);
    };
    socket.onerror = (event) => {
      failure = event.error;
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.onDisconnected(event.code, failure);
    };
  }

  onWelcomeTimeout() {
    count('welcomes_missed');
    this.cut();
  }

  onDisconnected(code, failure = '', onPurpose = false) {
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
    if (!welcomed && !onPurpose && this.reconnectAfterMs === undefined) {
      // A close code means that PostgreSQL failed after the upgrade. "bad handshake" means an answer other than 101.
      const refused = failure.indexOf('bad handshake') >= 0 ? 'refused' : 'not reached';
      count('upgrades_failed', { reason: code === undefined ? refused : `closed ${code}` });
    }
    if (welcomed && !onPurpose && this.reconnectAfterMs === undefined && !this.world.closesExpected()) {
      count('unexpected_closes', { code: String(code) });
    }
    if (FINAL_CODES.indexOf(code) >= 0) {
      count('gave_up', { code: String(code) });
      return;
    }
    // The service may not have stored unacknowledged heartbeats, so their fixes are sent again in the batch.
    this.heartbeats.forEach((heartbeat) => this.storeFix(heartbeat.fix));
    this.heartbeats = [];
    this.storeFixesWhileDisconnected();
    this.reconnect();
  }

  /** Reconnects after the wait of the `reconnect` frame, or after a random wait whose limit doubles with each failure. */
  reconnect() {
    let waitMs = this.reconnectAfterMs;
    this.reconnectAfterMs = undefined;
    if (waitMs === undefined) {
      waitMs = Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.failures);
      this.failures += 1;
    }
    this.after('connect', waitMs, () => this.connect());
  }

  // --- incoming frames ---

  onFrame(frame, at) {
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
        return this.onCommand(frame, () => this.onDelivery(frame.delivery));
      case 'status':
        if (frame.onDuty === false) count('sent_off_duty', { reason: String(frame.reason) });
        return undefined;
      case 'config':
        return this.onConfig(frame);
      case 'reconnect':
        this.reconnectAfterMs = frame.afterMs;
        return undefined;
      default:
        return undefined; // unknown frame types of a newer service are ignored
    }
  }

  onWelcome(frame, at) {
    this.welcomed = true;
    this.failures = 0;
    this.clear('welcome');
    connection(1);
    recordMs('welcome_ms', at - this.connectedAt);
    if (this.lostAt) recordMs('away_ms', at - this.lostAt);
    this.lostAt = 0;
    this.heartbeatIntervalMs = frame.heartbeatIntervalMs;
    // `welcome` is authoritative: a delivery missing there is no longer assigned, and an unknown one is new.
    this.drop((job) => !frame.deliveries.some((held) => held.assignmentId === job.delivery.assignmentId));
    frame.deliveries.forEach((held) => this.accept(held));
    // Requests that the old connection did not answer are sent again.
    Object.keys(this.requests).forEach((ref) => this.sendRequest(ref));
    if (!frame.driver.onDuty && !this.dutyRequested) {
      this.dutyRequested = true;
      this.request({ type: 'status', status: 'AVAILABLE' }, () => {
        this.dutyConfirmed = true;
      });
    } else if (!frame.driver.onDuty && this.dutyConfirmed) {
      count('sent_off_duty', { reason: 'seen in welcome' });
    }
    if (this.storedFixes.length > 0) {
      const fixes = this.storedFixes;
      this.storedFixes = [];
      this.request({ type: 'batch', fixes }, (answer) => {
        if (answer.refused.length > 0) count('fixes_refused', { code: answer.refused[0].code }, answer.refused.length);
      });
    }
    this.sendHeartbeat();
  }

  onAck(frame, at) {
    let acked = 0;
    while (acked < this.heartbeats.length && this.heartbeats[acked].seq <= frame.seq) {
      recordMs('heartbeat_ack_ms', at - this.heartbeats[acked].at);
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
    this.removeRequest(frame.ref);
    request.answered(frame);
  }

  onError(frame) {
    if (frame.retryable) {
      count('frame_retries', { code: frame.code });
      if (this.requests[frame.ref]) {
        this.after(`retry ${frame.ref}`, frame.retryAfterMs || 1000, () => this.sendRequest(frame.ref));
      }
      return;
    }
    count('frame_errors', { code: frame.code });
    const request = this.requests[frame.ref];
    if (!request) return;
    this.removeRequest(frame.ref);
    // The assignment is closed, belongs to another driver, or has another status. The next `welcome` or command has the truth.
    this.drop((job) => job.delivery.assignmentId === request.frame.assignmentId);
  }

  onConfig(frame) {
    this.heartbeatIntervalMs = frame.heartbeatIntervalMs;
    this.rescheduleHeartbeat();
  }

  /** Reschedules the next heartbeat within the changed interval. */
  rescheduleHeartbeat() {
    if (!this.welcomed || this.heartbeatsStopped) return;
    this.after('heartbeat', Math.random() * this.intervalMs(), () => this.sendHeartbeat());
  }

  /** Acknowledges a command each time and carries it out once. */
  onCommand(frame, carryOut) {
    this.send({ type: 'ack', messageId: frame.messageId });
    if (this.seenCommands[frame.messageId]) {
      count('commands_repeated', { type: frame.type });
      return;
    }
    this.seenCommands[frame.messageId] = true;
    carryOut();
  }

  // --- deliveries ---

  onAssignment(delivery, at) {
    count('assignments');
    const sentAt = delivery.metadata && delivery.metadata.sentAt;
    if (sentAt) recordMs('assignment_ms', at - sentAt);
    this.accept(delivery);
  }

  onDelivery(delivery) {
    const over = NEXT[delivery.status] === undefined;
    if (over) this.drop((job) => job.delivery.id === delivery.id);
  }

  accept(delivery) {
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
        .forEach((ref) => this.removeRequest(ref));
    });
    this.jobs = this.jobs.filter((job) => !isIt(job));
  }

  /** Drives to the next stop and reports the stage. The next stage begins when the service answered `ok`. */
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
      this.request(frame, () => {
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

  // --- outgoing frames ---

  sendHeartbeat() {
    if (this.heartbeatsStopped) return;
    this.after('heartbeat', this.intervalMs(), () => this.sendHeartbeat());
    const now = Date.now();
    const fix = this.mover.fix(now);
    this.seq += 1;
    this.heartbeats.push({ seq: this.seq, at: now, fix });
    count('heartbeats_sent');
    this.send(Object.assign({ type: 'heartbeat', seq: this.seq }, fix));
  }

  /** Stores fixes for a `batch` while there is no connection. */
  storeFixesWhileDisconnected() {
    this.after('heartbeat', this.intervalMs(), () => {
      if (this.welcomed || this.leaving) return;
      this.storeFix(this.mover.fix(Date.now()));
      this.storeFixesWhileDisconnected();
    });
  }

  storeFix(fix) {
    this.storedFixes.push(fix);
    if (this.storedFixes.length > MAX_STORED_FIXES) this.storedFixes.shift();
  }

  intervalMs() {
    return this.heartbeatIntervalMs / this.world.heartbeatFactor();
  }

  /** Sends a request, and repeats it until it is answered, also on new connections. */
  request(frame, answered) {
    this.references += 1;
    const ref = `r${this.references}`;
    this.requests[ref] = { frame: Object.assign({ ref }, frame), answered };
    this.sendRequest(ref);
  }

  sendRequest(ref) {
    const request = this.requests[ref];
    if (!request || !this.welcomed) return;
    this.send(request.frame);
    this.after(`retry ${ref}`, ANSWER_WITHIN_MS, () => this.sendRequest(ref));
  }

  removeRequest(ref) {
    this.clear(`retry ${ref}`);
    delete this.requests[ref];
  }

  send(frame) {
    // A request that cannot be sent now is sent after the next `welcome`.
    if (this.socket && this.socket.readyState === OPEN) this.socket.send(JSON.stringify(frame));
  }

  // --- timers ---

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
