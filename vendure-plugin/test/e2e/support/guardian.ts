/**
 * Ends the processes of a test that is gone: told of each by `add PID` and `remove PID` on standard input, whose end means
 * that the test has ended, however it ended.
 */
import { createInterface } from 'node:readline';

const pids = new Set<number>();

// Whatever ends the test's group must not end this first.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {});
}

createInterface({ input: process.stdin })
    .on('line', line => {
        const [word, pid] = line.split(' ');
        if (word === 'add') {
            pids.add(Number(pid));
        } else {
            pids.delete(Number(pid));
        }
    })
    .on('close', () => {
        signal('SIGTERM');
        setTimeout(() => {
            signal('SIGKILL');
            process.exit(0);
        }, pids.size > 0 ? 5_000 : 0);
    });

function signal(name: NodeJS.Signals): void {
    for (const pid of pids) {
        try {
            process.kill(pid, name);
        } catch {
            pids.delete(pid);
        }
    }
}
