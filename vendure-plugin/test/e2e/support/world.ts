/** Everything that the tests need, started once: servers, driver-tracker, the shop, a driver, and a look into its database. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { Client } from 'pg';

import { Driver } from './driver';
import { eventually } from './eventually';
import { freePort } from './processes';
import { AdminOrder, Shop } from './shop';
import { newSecret, PrivateServers, Tracker } from './tracker';

/** A row of the plugin's outbox. */
export interface OutboxRow {
    id: number;
    kind: string;
    state: string;
    attempts: number;
    leaseToken: string | null;
    lastStatus: number | null;
    lastError: string | null;
    deliveryId: string | null;
}

export class World {
    private constructor(
        private readonly dir: string,
        private readonly servers: PrivateServers,
        readonly database: Client,
        readonly tracker: Tracker,
        readonly shop: Shop,
        readonly driver: Driver,
        readonly drivers: Driver[],
    ) {}

    static async start(): Promise<World> {
        const dir = mkdtempSync(path.join(os.tmpdir(), 'driver-tracker-shop-'));
        // The servers' own account must be able to pass.
        chmodSync(dir, 0o711);
        const servers = await PrivateServers.start(dir);
        await createDatabases(servers.firstDatabase, ['shop', 'tracker']);
        const [trackerPort, shopPort] = [await freePort(), await freePort()];
        const [webhookSecret, eventsSecret] = [newSecret(), newSecret()];
        const tracker = new Tracker(dir, {
            databaseUrl: servers.database('tracker').href,
            redisUrl: servers.redisUrl,
            port: trackerPort,
            eventsUrl: Shop.eventsUrl(shopPort),
            webhookSecrets: [webhookSecret],
            eventsSecrets: [eventsSecret],
        });
        const shop = new Shop(dir, {
            port: shopPort,
            databaseUrl: servers.database('shop'),
            serviceUrl: tracker.url,
            signingSecrets: [webhookSecret],
            eventSecrets: [eventsSecret],
        });
        await Promise.all([tracker.start(), shop.begin()]);
        const database = new Client(servers.database('shop').href);
        database.on('error', () => {});
        await database.connect();
        const driver = await Driver.hire(tracker, 'Asha');
        return new World(dir, servers, database, tracker, shop, driver, [driver]);
    }

    /** Ends everything, in order, and removes what was written. */
    async stop(): Promise<void> {
        this.drivers.forEach(driver => driver.stop());
        await this.database.end();
        await Promise.all([this.shop.stop(), this.tracker.stop()]);
        await this.servers.stop();
        if (!process.env.KEEP_LOGS) {
            rmSync(this.dir, { recursive: true, force: true });
        }
    }

    /** Everything runs, and one driver is on duty, whatever the test before has left. */
    async recover(): Promise<void> {
        if (!this.tracker.running) {
            await this.tracker.start({ assignmentWaitMs: 250 });
        }
        this.shop.recoverWorker();
        for (const driver of this.drivers) {
            driver.resume();
            await driver.setDuty(driver === this.driver);
        }
    }

    async hire(name: string): Promise<Driver> {
        const driver = await Driver.hire(this.tracker, name);
        this.drivers.push(driver);
        return driver;
    }

    async outbox(orderId: string): Promise<OutboxRow[]> {
        const sql = 'SELECT * FROM driver_tracker_outbox WHERE "orderId" = $1 ORDER BY id';
        return (await this.database.query(sql, [orderId])).rows;
    }

    /** Waits until the outbox's entry of that kind is in that state. */
    async outboxIs(orderId: string, kind: string, state: string): Promise<OutboxRow> {
        return eventually(`the ${kind} entry of order ${orderId} is ${state}`, async () => {
            const row = (await this.outbox(orderId)).find(one => one.kind === kind);
            if (row?.state !== state) {
                throw new Error(`it is ${JSON.stringify(row)}`);
            }
            return row;
        });
    }

    /** Waits until the order is in that state, with all its fulfillments that are not cancelled. */
    async orderIs(orderId: string, state: string): Promise<AdminOrder> {
        return eventually(`order ${orderId} is ${state}`, async () => {
            const order = await this.shop.order(orderId);
            const alive = order.fulfillments.filter(one => one.state !== 'Cancelled');
            if (order.state !== state || alive.some(one => one.state !== state)) {
                throw new Error(`it is ${JSON.stringify(order)}`);
            }
            return order;
        });
    }

    /**
     * Meanwhile driver-tracker can take orders and commit them, and cannot give them to anybody: it keeps its answers back for
     * as long as `assignmentWaitMs`.
     */
    async whileNobodyIsChosen<T>(work: () => Promise<T>): Promise<T> {
        const lock = new Client(this.tracker.settings.databaseUrl);
        await lock.connect();
        try {
            await lock.query('BEGIN');
            await lock.query('LOCK TABLE assignments IN EXCLUSIVE MODE');
            return await work();
        } finally {
            await lock.end();
        }
    }

    /** What is in stock and allocated, of everything. */
    async stock(): Promise<object[]> {
        const sql = 'SELECT "productVariantId", "stockOnHand", "stockAllocated" FROM stock_level ORDER BY 1';
        return (await this.database.query(sql)).rows;
    }

    /** Changes what is in stock of a variant; gives what was. */
    async setStockOnHand(variantId: string, quantity: number): Promise<number> {
        const select = 'SELECT "stockOnHand" FROM stock_level WHERE "productVariantId" = $1';
        const { rows } = await this.database.query(select, [variantId]);
        await this.database.query('UPDATE stock_level SET "stockOnHand" = $2 WHERE "productVariantId" = $1', [variantId, quantity]);
        return rows[0].stockOnHand;
    }

    /** Waits until the service knows the order; gives its one delivery. */
    async delivery(orderId: string): Promise<any> {
        return eventually(`driver-tracker knows order ${orderId}`, async () => (await this.tracker.deliveriesOf(orderId))[0]);
    }
}

async function createDatabases(url: string, names: string[]): Promise<void> {
    const client = new Client(url);
    await client.connect();
    for (const name of names) {
        await client.query(`CREATE DATABASE ${name}`);
    }
    await client.end();
}
