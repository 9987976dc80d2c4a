import { Inject, Injectable } from '@nestjs/common';

import { DRIVER_TRACKER_OPTIONS } from '../constants';
import type { OutboxKind } from '../entities/outbox-entry.entity';
import type { ResolvedOptions } from '../options';
import { signedHeaders } from '../signature';
import type { CancelledBody, ReadyBody } from './order-body';
import { Answer, judge, Verdict } from './verdict';

const PATHS: Record<OutboxKind, string> = { ready: 'seller-order-ready', cancelled: 'seller-order-cancelled' };
/** How much of an answer is read. */
const MAX_ANSWER_BYTES = 65_536;

/**
 * Posts to driver-tracker. One post, one answer: retries belong to the caller. A post ends at the deadline, answer
 * included; it is signed freshly; redirects are not followed, since they would carry the order elsewhere.
 */
@Injectable()
export class ServiceClient {
    constructor(@Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions) {}

    /** Posts once. Never throws: every failure is a verdict. */
    async post(kind: OutboxKind, body: ReadyBody | CancelledBody, deadline: AbortSignal): Promise<Verdict> {
        const { serviceUrl, shop, signingSecrets, timeoutMs } = this.options;
        const raw = Buffer.from(JSON.stringify(body));
        // The same on every attempt, so that logs of both sides can be laid side by side.
        const webhookId = `${shop}-${body.sellerOrderId}-${kind}`;
        try {
            const response = await fetch(`${serviceUrl}/webhooks/${shop}/${PATHS[kind]}`, {
                method: 'POST',
                body: raw,
                headers: { 'content-type': 'application/json', ...signedHeaders(signingSecrets, webhookId, raw) },
                redirect: 'manual',
                signal: deadline,
            });
            return judge(kind, body.sellerOrderId, await read(response));
        } catch (error) {
            return { outcome: 'retry', error: explain(error, timeoutMs) };
        }
    }
}

async function read(response: Response): Promise<Answer> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
        chunks.push(chunk);
        size += chunk.length;
        // Leaving the loop cancels the rest.
        if (size > MAX_ANSWER_BYTES) {
            break;
        }
    }
    const body = Buffer.concat(chunks).toString('utf8');
    return { status: response.status, retryAfter: response.headers.get('retry-after'), body };
}

function explain(error: unknown, timeoutMs: number): string {
    const { name, message, cause } = error as Error & { cause?: { code?: string; message?: string } };
    if (name === 'TimeoutError') {
        return `no answer within ${timeoutMs} ms`;
    }
    return `no answer: ${cause?.code ?? cause?.message ?? message}`;
}
