// A shop: posts orders that are signed by Standard Webhooks, and repeats the same body until a node accepts it.

import http from 'k6/http';
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import { sleep } from 'k6';

import { somewhere } from './movement.js';
import { NODES, WEBHOOK_SECRET } from './settings.js';
import { count, recordMs, writeLine } from './stats.js';

/** How long an order is repeated while no node accepts it. */
const RETRY_WITHIN_MS = 30000;
const PAUSE_S = 0.25;

/** Returns the headers that authenticate the body. The signature is `v1,` and the HMAC-SHA256 of "id.timestamp.body". */
export function signed(secret, id, body) {
  const key = encoding.b64decode(secret.replace(/^whsec_/, ''), 'std');
  const timestamp = Math.floor(Date.now() / 1000);
  const signature = crypto.hmac('sha256', key, `${id}.${timestamp}.${body}`, 'base64');
  return {
    'Content-Type': 'application/json',
    'webhook-id': id,
    'webhook-timestamp': String(timestamp),
    'webhook-signature': `v1,${signature}`,
  };
}

/** Posts one new order. The driver's assignment contains `metadata.sentAt`, from which the latency is computed. */
export function postOrder() {
  const sellerOrderId = `${__ENV.RUN || Date.now()}-${exec.scenario.name}-${exec.scenario.iterationInTest}`;
  const began = Date.now();
  const body = JSON.stringify({
    sellerOrderId,
    channelId: '1',
    pickup: Object.assign(somewhere(), { address: 'Kitchen 7' }),
    drop: Object.assign(somewhere(), { address: '12 Lake Road' }),
    items: [{ sku: 'A1', name: 'Dosa', quantity: 2 }],
    metadata: { sentAt: began },
  });
  let status = 0;
  for (let tries = 0; Date.now() - began < RETRY_WITHIN_MS; tries += 1) {
    // The attempts go to one node after the other, like behind a load balancer.
    const node = NODES[tries % NODES.length];
    const response = http.post(`${node}/webhooks/vendure/seller-order-ready`, body, {
      headers: signed(WEBHOOK_SECRET, sellerOrderId, body),
      timeout: '10s',
      tags: { name: '/webhooks/vendure/seller-order-ready' },
    });
    status = response.status;
    if (status >= 200 && status < 300) {
      recordMs('webhook_ms', Date.now() - began);
      count('orders_accepted');
      writeLine({ accepted: sellerOrderId });
      return;
    }
    // The order is refused permanently. Any other failure (no connection, 429, 503) is retried.
    if (status >= 400 && status < 500 && status !== 429) break;
    count('order_retries', { status: String(status) });
    if (tries % NODES.length === NODES.length - 1) sleep(PAUSE_S);
  }
  count('orders_refused', { status: String(status) });
  writeLine();
}
