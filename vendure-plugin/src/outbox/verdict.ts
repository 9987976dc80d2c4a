/** What an answer of driver-tracker means. Pure. */
import { parseRetryAfter } from './backoff';
import type { OutboxKind } from '../entities/outbox-entry.entity';

/** What came of one post. */
export type Verdict =
    /** driver-tracker has it, committed. */
    | { outcome: 'sent'; status: number; deliveryId?: string; note?: string }
    /** There was nothing to call off any more. */
    | { outcome: 'skipped'; status?: number; note: string }
    /** Another moment, or an operator of either side, may mend it. */
    | { outcome: 'retry'; status?: number; error: string; retryAfterMs?: number }
    /** It will not be taken as it is. */
    | { outcome: 'failed'; status: number; error: string };

/** An answer, read to its end or to the limit. */
export interface Answer {
    status: number;
    retryAfter: string | null;
    body: string;
}

const MAX_ERROR_CHARS = 2_000;

/**
 * | answer | meaning |
 * |---|---|
 * | 2xx in driver-tracker's shape | sent |
 * | 2xx in another shape | retry: something else answers at that address |
 * | 422, 413 | failed: the order itself is at fault |
 * | 409 to a cancelling post, `state` DELIVERED | skipped: nothing is left to be called off |
 * | another 409 to a cancelling post | failed: the delivery had failed before, and may be tried again there |
 * | 400, 401, 403, 404 and other 4xx | retry: a secret, a clock, an address or a proxy is wrong, which an operator mends |
 * | 429, 503, other 5xx | retry, not before `Retry-After` |
 * | 3xx | retry: redirects are never followed |
 */
export function judge(kind: OutboxKind, sellerOrderId: string, answer: Answer): Verdict {
    const { status } = answer;
    const document = parseObject(answer.body);
    if (status >= 200 && status < 300) {
        return judgeSuccess(sellerOrderId, status, document);
    }
    if (status >= 300 && status < 400) {
        return { outcome: 'retry', status, error: `${status}: redirects are not followed; correct serviceUrl` };
    }
    if (status === 409 && kind === 'cancelled' && document?.state === 'DELIVERED') {
        return { outcome: 'skipped', status, note: 'it was delivered before it was called off' };
    }
    const error = describe(status, document);
    if (status === 422 || status === 413 || (status === 409 && kind === 'cancelled')) {
        return { outcome: 'failed', status, error };
    }
    return { outcome: 'retry', status, error, retryAfterMs: parseRetryAfter(answer.retryAfter) };
}

function judgeSuccess(sellerOrderId: string, status: number, document: Record<string, unknown> | undefined): Verdict {
    if (document?.sellerOrderId !== sellerOrderId) {
        const error = `${status}, but not in driver-tracker's shape: is serviceUrl its address?`;
        return { outcome: 'retry', status, error };
    }
    const deliveryId = typeof document.deliveryId === 'string' ? document.deliveryId : undefined;
    const note = document.conflict === true ? conflictNote(document.differs) : undefined;
    return { outcome: 'sent', status, deliveryId, note };
}

/** Which values driver-tracker did not take. An older one compares coordinates alone, and names no field. */
function conflictNote(differs: unknown): string {
    const fields = (Array.isArray(differs) ? differs : []).map(textOf).filter(Boolean);
    const what = fields.length > 0 ? fields.join(', ') : 'coordinates';
    return `driver-tracker knew the order with other values and keeps those: ${what}`.slice(0, MAX_ERROR_CHARS);
}

/** An RFC 9457 problem in one line, each field at fault named. */
function describe(status: number, document: Record<string, unknown> | undefined): string {
    const parts = [String(status), textOf(document?.code), textOf(document?.detail)].filter(Boolean);
    const errors = (Array.isArray(document?.errors) ? document.errors : []) as Array<Record<string, unknown> | null>;
    const fields = errors.map(one => `${textOf(one?.field)} ${textOf(one?.message)}`.trim()).filter(Boolean);
    const line = parts.join(' ') + (fields.length > 0 ? `: ${fields.join('; ')}` : '');
    return line.slice(0, MAX_ERROR_CHARS);
}

function textOf(value: unknown): string {
    return typeof value === 'string' ? value : '';
}

function parseObject(body: string): Record<string, unknown> | undefined {
    try {
        const value: unknown = JSON.parse(body);
        return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
    } catch {
        return undefined;
    }
}
