/** When a post that failed is tried again. Pure: the caller brings the randomness. */

/** The longest wait that driver-tracker may ask for. */
export const MAX_RETRY_AFTER_MS = 3_600_000;

/** What the wait follows from. */
export interface Backoff {
    /** The limit of the first wait; it doubles with each failure. */
    baseMs: number;
    /** The highest limit. */
    maxMs: number;
}

/**
 * The wait after failure number `attempts` (1 is the first): random from 0 to a limit that doubles ("full jitter"), so that
 * what failed together does not come back together. What the receiver asked for by `Retry-After` comes before it, whole.
 *
 * @param random in [0, 1)
 */
export function retryDelayMs(
    { baseMs, maxMs }: Backoff,
    attempts: number,
    retryAfterMs: number | undefined,
    random: number = Math.random(),
): number {
    const doublings = Math.min(Math.max(attempts - 1, 0), 30);
    const limit = Math.min(maxMs, baseMs * 2 ** doublings);
    return Math.round(random * limit) + Math.min(retryAfterMs ?? 0, MAX_RETRY_AFTER_MS);
}

/** `Retry-After` in ms: seconds, or a date. `undefined` when absent or not readable. */
export function parseRetryAfter(header: string | null, now: Date = new Date()): number | undefined {
    if (header === null) {
        return undefined;
    }
    if (/^\d{1,9}$/.test(header.trim())) {
        return Number(header.trim()) * 1_000;
    }
    const at = Date.parse(header);
    return Number.isNaN(at) ? undefined : Math.max(0, at - now.getTime());
}
