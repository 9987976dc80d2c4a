// What a load balancer does before several nodes: asks each whether it is ready, and sends who comes to one that is.

import http from 'k6/http';

const ASK_EVERY_MS = 500;

/** The first node that is ready gets everybody, so that a whole fleet can be seen to move. */
export class Balancer {
  constructor(nodes) {
    this.nodes = nodes;
    this.ready = nodes.map(() => true);
  }

  /** A base URL, or null while no node is ready. */
  pick() {
    const index = this.ready.indexOf(true);
    return index < 0 ? null : this.nodes[index];
  }

  /** Begins to ask. One node needs no asking: there is nowhere else to go. */
  start() {
    if (this.nodes.length < 2) return;
    const ask = () => this.nodes.forEach((node, index) => this.ask(node, index));
    ask();
    this.timer = setInterval(ask, ASK_EVERY_MS);
  }

  stop() {
    if (this.timer) clearInterval(this.timer);
  }

  async ask(node, index) {
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
