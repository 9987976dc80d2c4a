import type { NextFunction, Request, Response } from 'express';
import { raw } from 'express';

/** driver-tracker's events are far smaller. */
const MAX_EVENT_BYTES = 262_144;

type Handler = (request: Request, response: Response, next: NextFunction) => void;

/** Reads the body as the bytes that were signed. A larger one is answered with 413, a compressed one with 415. */
export function rawBody(): Handler {
    const read = raw({ type: () => true, limit: MAX_EVENT_BYTES, inflate: false });
    return (request, response, next) => {
        read(request, response, (error?: unknown) => {
            if (!error) {
                return next();
            }
            const { status = 400 } = error as { status?: number };
            response.status(status).json({ error: 'the body cannot be read' });
        });
    };
}
