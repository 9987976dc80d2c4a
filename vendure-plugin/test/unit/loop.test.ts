import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Loop } from '../../src/outbox/loop';

test('one run after the other, and none after it was stopped', async () => {
    let atOnce = 0;
    let runs = 0;
    let enough: () => void;
    const three = new Promise<void>(resolve => (enough = resolve));
    const loop = new Loop(async () => {
        atOnce += 1;
        assert.equal(atOnce, 1);
        await new Promise(resolve => setTimeout(resolve, 2));
        runs += 1;
        atOnce -= 1;
        if (runs === 3) {
            enough();
        }
        return 0;
    });
    loop.start();
    await three;
    await loop.stop();
    const ran = runs;
    assert.equal(atOnce, 0, 'the run under way was waited for');
    await new Promise(resolve => setTimeout(resolve, 20));
    assert.equal(runs, ran);
});
