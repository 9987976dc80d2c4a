/** The real driver-tracker: private servers by its own `dev`, and `serve` processes that the test starts, stops and kills. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { Process } from './processes';

const run = promisify(execFile);

/** The program under test. */
export function program(): string {
    const bin = process.env.DRIVER_TRACKER_BIN;
    if (!bin) {
        throw new Error('DRIVER_TRACKER_BIN must name the program driver-tracker; `make test-vendure` sets it');
    }
    return bin;
}

/** A fresh `whsec_…`. */
export function newSecret(): string {
    return `whsec_${randomBytes(32).toString('base64')}`;
}

/** A private PostgreSQL and Redis. They end with the process that started them. */
export class PrivateServers {
    private constructor(
        private readonly process: Process,
        private readonly databaseUrl: string,
        readonly redisUrl: string,
    ) {}

    static async start(dir: string): Promise<PrivateServers> {
        const args = ['dev', '--drivers', '0', '--dir', path.join(dir, 'dev'), '--listen', '127.0.0.1:0'];
        const process = Process.start('servers', dir, program(), args, {});
        const state = () => JSON.parse(readFileSync(path.join(dir, 'dev', 'state.json'), 'utf8'));
        await process.ready(() => Promise.resolve(Boolean(state().databaseUrl)));
        return new PrivateServers(process, state().databaseUrl, state().redisUrl);
    }

    /** The URL of a database of that name, there or not. */
    database(name: string): URL {
        const url = new URL(this.databaseUrl);
        url.pathname = `/${name}`;
        return url;
    }

    /** The database that is there from the start. */
    get firstDatabase(): string {
        return this.databaseUrl;
    }

    async stop(): Promise<void> {
        await this.process.stop();
    }
}

/** What a `serve` process is started with. */
export interface TrackerSettings {
    databaseUrl: string;
    redisUrl: string;
    port: number;
    eventsUrl: string;
    webhookSecrets: string[];
    eventsSecrets: string[];
    /** How long an order waits for a driver before it is answered. */
    assignmentWaitMs?: number;
}

/** One node of the service, and its REST API. */
export class Tracker {
    private process: Process | undefined;
    private adminKey = '';

    constructor(
        private readonly logDir: string,
        readonly settings: TrackerSettings,
    ) {}

    get url(): string {
        return `http://127.0.0.1:${this.settings.port}`;
    }

    async start(changes: Partial<TrackerSettings> = {}): Promise<void> {
        Object.assign(this.settings, changes);
        this.process = Process.start('driver-tracker', this.logDir, program(), ['serve'], this.environment());
        await this.process.ready(async () => (await fetch(`${this.url}/health/ready`)).ok);
        if (!this.adminKey) {
            const args = ['api-key', 'create', '--name', 'test', '--scope', 'admin'];
            const { stdout } = await run(program(), args, { env: { ...process.env, ...this.environment() } });
            this.adminKey = stdout.trim();
        }
    }

    get running(): boolean {
        return this.process?.running ?? false;
    }

    async stop(): Promise<void> {
        await this.process?.stop();
    }

    /** SIGKILL. */
    async kill(): Promise<void> {
        await this.process?.kill();
    }

    async restart(changes: Partial<TrackerSettings> = {}): Promise<void> {
        await this.stop();
        await this.start(changes);
    }

    /** Calls `/api/v1`; throws on anything but 2xx. */
    // The answers are the service's own, which its own tests hold.
    async api(method: string, route: string, body?: unknown): Promise<any> {
        const response = await fetch(`${this.url}/api/v1${route}`, {
            method,
            headers: { authorization: `Bearer ${this.adminKey}`, 'content-type': 'application/json' },
            body: body === undefined ? undefined : JSON.stringify(body),
        });
        const text = await response.text();
        if (!response.ok) {
            throw new Error(`${method} ${route}: ${response.status} ${text}`);
        }
        return text ? JSON.parse(text) : undefined;
    }

    /** The deliveries of one order of the shop: one, or none. */
    async deliveriesOf(sellerOrderId: string): Promise<any[]> {
        return (await this.api('GET', `/deliveries?shop=vendure&sellerOrderId=${sellerOrderId}`)).items;
    }

    private environment(): Record<string, string> {
        const { settings } = this;
        return {
            DATABASE_URL: settings.databaseUrl,
            MIGRATE_ON_START: 'true',
            REDIS_URL: settings.redisUrl,
            REDIS_KEY_PREFIX: 'shop-test:',
            LISTEN_ADDR: `127.0.0.1:${settings.port}`,
            METRICS_ADDR: '127.0.0.1:0',
            VENDURE_WEBHOOK_SECRET: settings.webhookSecrets.join(','),
            VENDURE_EVENTS_URL: settings.eventsUrl,
            VENDURE_EVENTS_SECRET: settings.eventsSecrets.join(','),
            EVENTS_ALLOWED_NETWORKS: '127.0.0.0/8',
            EVENTS_RETRY_SCHEDULE: ['0s', '100ms', '300ms', ...Array(47).fill('1s')].join(','),
            ASSIGNMENT_WAIT_MS: String(settings.assignmentWaitMs ?? 250),
            HEARTBEAT_INTERVAL_MS: '1000',
            PENDING_SWEEP_MS: '200',
            SHUTDOWN_DELAY_MS: '0',
            SHUTDOWN_GRACE_MS: '2000',
            LOG_FORMAT: 'pretty',
        };
    }
}
