/** Waits on conditions with deadlines, never on time alone. */
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 50;

/** The first value of `probe` that is neither `undefined` nor `false`. A probe that throws is asked again. */
export async function eventually<T>(
    what: string,
    probe: () => Promise<T | undefined | false> | T | undefined | false,
    deadlineMs = 30_000,
): Promise<T> {
    const deadline = Date.now() + deadlineMs;
    let last: unknown = 'it was never so';
    for (;;) {
        try {
            const value = await probe();
            if (value !== undefined && value !== false) {
                return value;
            }
        } catch (error) {
            last = error;
        }
        if (Date.now() > deadline) {
            throw new Error(`within ${deadlineMs / 1000} s it did not come about that ${what}`, { cause: last });
        }
        await sleep(POLL_MS);
    }
}
