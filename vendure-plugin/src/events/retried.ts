import { setTimeout as sleep } from 'node:timers/promises';

/** How often at most. */
const TRIES = 5;
/** PostgreSQL's codes for what another moment mends: deadlock, serialization failure, lock timeout. */
const PASSING = ['40P01', '40001', '55P03'];

/** Does `work`, a whole transaction, again when it came into conflict with another. The last error is thrown. */
export async function retried<T>(work: () => Promise<T>, pauseMs = 100): Promise<T> {
    for (let tries = 1; ; tries += 1) {
        try {
            return await work();
        } catch (error) {
            if (tries === TRIES || !PASSING.includes((error as { code?: string }).code ?? '')) {
                throw error;
            }
            await sleep(Math.random() * pauseMs * tries);
        }
    }
}
