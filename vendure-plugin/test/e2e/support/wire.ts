/** Notes every body that the shop sends and is sent, so that the test can hold each to its schema. */
import { appendFileSync, readFileSync } from 'node:fs';

import type { Middleware } from '@vendure/core';
import type { NextFunction, Request, Response } from 'express';

/** Events with this id are made by hand, and no more than a test needs. */
export const MADE_BY_HAND = 'made-by-hand';

export interface Noted {
    direction: 'out' | 'in';
    url: string;
    body: string;
}

/** Everything that was noted in `file`. */
export function readWire(file: string): Noted[] {
    return readFileSync(file, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map(line => JSON.parse(line) as Noted);
}

/** From now on every `fetch` of this process is noted. */
export function noteOutgoing(file: string): void {
    const real = globalThis.fetch;
    globalThis.fetch = (url, init) => {
        note(file, { direction: 'out', url: url as string, body: (init?.body as Buffer).toString('utf8') });
        return real(url, init);
    };
}

/** Notes what comes in at `route`, as the plugin's parser has read it, and leaves it to the next handler. */
export function noteIncoming(file: string, route: string): Middleware {
    const handler = (request: Request, _response: Response, next: NextFunction) => {
        if (request.headers['webhook-id'] !== MADE_BY_HAND && Buffer.isBuffer(request.body)) {
            note(file, { direction: 'in', url: route, body: request.body.toString('utf8') });
        }
        next();
    };
    return { route, handler, beforeListen: true };
}

function note(file: string, noted: Noted): void {
    appendFileSync(file, `${JSON.stringify(noted)}\n`);
}
