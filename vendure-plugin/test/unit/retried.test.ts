import assert from 'node:assert/strict';
import { test } from 'node:test';

import { retried } from '../../src/events/retried';

/** How often work is done that fails `times` with `code`; and what came of it. */
async function tries(code: string, times: number): Promise<[number, string]> {
    let count = 0;
    const work = () => {
        count += 1;
        return count > times ? Promise.resolve('done') : Promise.reject(Object.assign(new Error('refused'), { code }));
    };
    const came = await retried(work, 0).catch(() => 'thrown');
    return [count, came];
}

test('a conflict of transactions is tried again, a few times, and nothing else is', async () => {
    for (const code of ['40P01', '40001', '55P03']) {
        assert.deepEqual(await tries(code, 2), [3, 'done']);
        assert.deepEqual(await tries(code, 99), [5, 'thrown']);
    }
    assert.deepEqual(await tries('23505', 1), [1, 'thrown']);
});
