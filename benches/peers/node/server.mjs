// Writes heartbeats from WebSockets into Redis, with the same frames as the service.
//
// It parses and checks each heartbeat, runs SET … EX … GET and one GEOADD XX for many drivers, and acknowledges after Redis
// has stored them. It implements its own batching: one pipeline every 5 ms with the newest heartbeat of each driver.
// It has no sessions, no PostgreSQL and no authentication. What it omits is in its favour.
import { createServer } from "node:http";
import Redis from "ioredis";
import { WebSocketServer } from "ws";

const BATCH_MS = 5;
const GEO_BATCH = 256;
const redis = new Redis(process.env.REDIS_URL, { enableAutoPipelining: false });
const server = createServer();
const sockets = new WebSocketServer({
  server,
  path: "/ws/driver",
  perMessageDeflate: false,
  maxPayload: 16 * 1024,
  handleProtocols: () => "driver-tracker.v1",
});

/** The newest unwritten heartbeat of each driver. */
let slots = new Map();
let writing = false;
let lastDriver = 0;

function refuse(socket, seq, code) {
  socket.send(JSON.stringify({ type: "error", seq, code }));
}

function heartbeat(socket, frame) {
  const { seq, lat, lon, fixTime } = frame;
  if (!Number.isInteger(seq)) return refuse(socket, seq, "invalid_frame");
  const at = Date.parse(fixTime);
  const placed = Number.isFinite(lat) && Number.isFinite(lon) && Math.abs(lat) <= 85.05112878 && Math.abs(lon) <= 180;
  if (!placed || Number.isNaN(at)) return refuse(socket, seq, "invalid_frame");
  if (at > Date.now() + 30_000) return refuse(socket, seq, "fix_in_future");
  slots.set(socket.driver, { socket, seq, lat, lon, at });
}

async function flush() {
  if (writing || slots.size === 0) return;
  writing = true;
  const batch = [...slots.values()];
  slots = new Map();
  const pipeline = redis.pipeline();
  const now = Date.now();
  for (let from = 0; from < batch.length; from += GEO_BATCH) {
    const members = [];
    for (const { socket, lat, lon, at } of batch.slice(from, from + GEO_BATCH)) {
      pipeline.set(`driver:online:${socket.driver}`, `${lat},${lon},${at},${now},1`, "EX", 30, "GET");
      members.push(lon, lat, `driver:${socket.driver}`);
    }
    pipeline.geoadd("drivers:geo", "XX", ...members);
  }
  try {
    await pipeline.exec();
    for (const { socket, seq } of batch) socket.send(`{"type":"ack","seq":${seq}}`);
  } finally {
    writing = false;
  }
}

sockets.on("connection", (socket) => {
  socket.driver = `00000000-0000-4000-8000-${String(++lastDriver).padStart(12, "0")}`;
  socket.send(JSON.stringify({ type: "welcome", heartbeatIntervalMs: 5000, ttlMs: 30000 }));
  socket.on("message", (data) => {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return refuse(socket, undefined, "invalid_json");
    }
    if (frame.type === "heartbeat") heartbeat(socket, frame);
    else refuse(socket, frame.seq, "unknown_type");
  });
  socket.on("error", () => socket.terminate());
});

setInterval(flush, BATCH_MS);
server.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
