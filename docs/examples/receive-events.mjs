// Receives delivery events and verifies their signatures. Plain Node 18 or newer, no packages:
//
//   EVENTS_SECRET=whsec_… PORT=3000 node receive-events.mjs
//
// EVENTS_SECRET may be several, by commas, while it is rotated.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secrets = process.env.EVENTS_SECRET.split(",");
const TOLERANCE_S = 300;
const MOST_BYTES = 256 * 1024;

/** Whether one of the signatures is made with one of the secrets, over the raw bytes, just now. */
function isSigned(headers, raw) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures } = headers;
  if (!id || !/^\d+$/.test(timestamp ?? "") || !signatures) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const given = signatures.split(" ").filter(one => one.startsWith("v1,")).map(one => Buffer.from(one.slice(3), "base64"));
  return secrets.some(secret => {
    const key = Buffer.from(secret.trim().replace(/^whsec_/, ""), "base64");
    const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(raw).digest();
    return given.some(one => one.length === expected.length && timingSafeEqual(one, expected));
  });
}

// In a real shop both stand in a table, and are written in the transaction that applies the event.
const handled = new Set();
const lastSequence = new Map();

/** Applies an event once, and none that is older than what was applied. */
function apply(event) {
  if (handled.has(event.eventId) || event.sequence <= (lastSequence.get(event.deliveryId) ?? 0)) return;
  handled.add(event.eventId);
  lastSequence.set(event.deliveryId, event.sequence);
  console.log(JSON.stringify({ order: event.sellerOrderId, event: event.event, status: event.status }));
}

createServer(async (request, response) => {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MOST_BYTES) return response.writeHead(413).end();
    chunks.push(chunk);
  }
  const raw = Buffer.concat(chunks);
  // 401 is tried again later: a secret that is wrong for a while loses nothing.
  if (!isSigned(request.headers, raw)) return response.writeHead(401).end();
  apply(JSON.parse(raw));
  response.writeHead(204).end();
}).listen(Number(process.env.PORT ?? 3000), "127.0.0.1", function () {
  console.log(`listening on ${this.address().port}`);
});
