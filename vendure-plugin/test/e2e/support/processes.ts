/**
 * Child processes of the test, each ended by its own id: in order when the test ends, and by a guardian when the test itself
 * is killed.
 */
import { ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';

import { eventually } from './eventually';

const TERM_MS = 20_000;

let guardian: ChildProcess | undefined;

/** One running process, its output in a file. */
export class Process {
    private exited = false;

    private constructor(
        readonly name: string,
        readonly logFile: string,
        private readonly child: ChildProcess,
    ) {
        child.once('exit', () => {
            this.exited = true;
            tellGuardian(`remove ${this.pid}`);
        });
    }

    static start(name: string, logDir: string, command: string, args: string[], env: Record<string, string>): Process {
        const logFile = path.join(logDir, `${name}.log`);
        const log = openSync(logFile, 'a');
        const child = spawn(command, args, { env: { ...cleanEnvironment(), ...env }, stdio: ['ignore', log, log] });
        closeSync(log);
        if (child.pid === undefined) {
            throw new Error(`${command} could not be started`);
        }
        tellGuardian(`add ${child.pid}`);
        return new Process(name, logFile, child);
    }

    get pid(): number {
        return this.child.pid as number;
    }

    get running(): boolean {
        return !this.exited;
    }

    /** Waits for `probe`, and gives up at once when the process ends. */
    async ready(probe: () => Promise<boolean>): Promise<void> {
        const outcome = await eventually(`${this.name} is up`, async () => {
            if (this.exited) {
                return 'exited' as const;
            }
            return (await probe()) ? ('up' as const) : undefined;
        });
        if (outcome === 'exited') {
            throw new Error(`${this.name} ended at once:\n${this.tail()}`);
        }
    }

    /** SIGKILL: no chance to finish anything. */
    async kill(): Promise<void> {
        await this.end('SIGKILL');
    }

    /** SIGTERM, and SIGKILL when that does not help. */
    async stop(): Promise<void> {
        const timer = setTimeout(() => this.child.kill('SIGKILL'), TERM_MS);
        await this.end('SIGTERM');
        clearTimeout(timer);
    }

    tail(): string {
        return readFileSync(this.logFile, 'utf8').split('\n').slice(-40).join('\n');
    }

    private async end(signal: NodeJS.Signals): Promise<void> {
        if (!this.exited) {
            const gone = once(this.child, 'exit');
            this.child.kill(signal);
            await gone;
        }
    }
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    server.close();
    await once(server, 'close');
    return port;
}

/** Without settings of the caller's that would mean something to the programs under test. */
function cleanEnvironment(): Record<string, string> {
    const { PATH = '', HOME = '', LANG = 'C.UTF-8', TMPDIR } = process.env;
    return { PATH, HOME, LANG, ...(TMPDIR ? { TMPDIR } : {}) };
}

function tellGuardian(line: string): void {
    if (!guardian) {
        guardian = spawn(process.execPath, [path.join(__dirname, 'guardian.js')], { stdio: ['pipe', 'ignore', 'ignore'] });
        guardian.stdin?.on('error', () => {});
        guardian.unref();
        (guardian.stdin as unknown as { unref?: () => void }).unref?.();
    }
    guardian.stdin?.write(`${line}\n`);
}
