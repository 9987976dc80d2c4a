import { RequestHandler, raw } from 'express';

/** driver-tracker's events are far smaller. */
const MAX_EVENT_BYTES = 262_144;

/** Reads the body as the bytes that were signed. Compressed or larger ones are refused later, as any error is. */
export function rawBody(): RequestHandler {
    return raw({ type: () => true, limit: MAX_EVENT_BYTES, inflate: false });
}
