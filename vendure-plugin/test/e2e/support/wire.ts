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

/** Notes what comes in at `route`, and leaves it to the next handler. */
export function noteIncoming(file: string, route: string): Middleware {
    const handler = (request: Request, _response: Response, next: NextFunction) => {
        const chunks: Buffer[] = [];
        request.on('data', (chunk: Buffer) => chunks.push(chunk));
        request.on('end', () => {
            if (request.headers['webhook-id'] !== MADE_BY_HAND) {
                note(file, { direction: 'in', url: route, body: Buffer.concat(chunks).toString('utf8') });
            }
        });
        next();
    };
    return { route, handler, beforeListen: true };
}

function note(file: string, noted: Noted): void {
    appendFileSync(file, `${JSON.stringify(noted)}\n`);
}
