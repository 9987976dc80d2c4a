// A load balancer in front of several nodes: checks whether each node is ready, and sends connections to a ready node.

import http from 'k6/http';

const CHECK_EVERY_MS = 500;

/** The first ready node gets every connection, so that the whole fleet moves from one node to another. */
export class Balancer {
  constructor(nodes) {
    this.nodes = nodes;
    this.ready = nodes.map(() => true);
  }

  /** Returns a base URL, or null while no node is ready. */
  pick() {
    const index = this.ready.indexOf(true);
    return index < 0 ? null : this.nodes[index];
  }

  /** Starts the checks. A single node is not checked, because there is no other choice. */
  start() {
    if (this.nodes.length < 2) return;
    const checkAll = () => this.nodes.forEach((node, index) => this.check(node, index));
    checkAll();
    this.timer = setInterval(checkAll, CHECK_EVERY_MS);
  }

  stop() {
    if (this.timer) clearInterval(this.timer);
  }

  async check(node, index) {
    try {
      const answer = await http.asyncRequest('GET', `${node}/health/ready`, null, {
        timeout: '2s',
        tags: { name: '/health/ready' },
      });
      this.ready[index] = answer.status === 200;
    } catch (_) {
      this.ready[index] = false;
    }
  }
}
