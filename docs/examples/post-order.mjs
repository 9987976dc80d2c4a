// Posts one order, signed with Standard Webhooks. Plain Node 18 or newer, no packages:
//
//   TRACKER_URL=https://tracker.example.com SHOP=bakery ORDERS_SECRET=whsec_… node post-order.mjs order.json
//
// Post it again whenever no 2xx comes: the same order is taken once, however often it comes.
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const { TRACKER_URL, SHOP, ORDERS_SECRET } = process.env;
const body = readFileSync(process.argv[2]);

/** The three headers over the very bytes that are sent. */
function sign(secret, id, bytes) {
  const timestamp = Math.floor(Date.now() / 1000).toString();
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const signature = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(bytes).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": `v1,${signature}` };
}

const path = JSON.parse(body).pickup ? "seller-order-ready" : "seller-order-cancelled";
const answer = await fetch(`${TRACKER_URL}/webhooks/${SHOP}/${path}`, {
  method: "POST",
  headers: { "content-type": "application/json", ...sign(ORDERS_SECRET, randomUUID(), body) },
  body,
});
console.log(answer.status, await answer.text());
process.exitCode = answer.ok ? 0 : 1;
