/** The real shop: Vendure's server and worker as processes of their own, and what customers and administrators do there. */
import path from 'node:path';

import { Catalogue, fillShop } from './catalogue';
import { GraphqlClient } from './graphql';
import { PAYMENT_METHOD } from './marketplace';
import { Process } from './processes';
import type { ShopProcessSettings } from './shop-process';

const SUPERADMIN = { identifier: 'superadmin', password: 'superadmin' };

/** What can be changed from one start to the next. */
export interface ShopSettings {
    port: number;
    databaseUrl: URL;
    serviceUrl: string;
    signingSecrets: string[];
    eventSecrets: string[];
    ownReadyWhen?: boolean;
}

/** What one customer buys. */
export interface Purchase {
    variants: string[];
    /** Where it is brought; `undefined` leaves the coordinates out. */
    at?: { lat: number; lon: number } | null;
    lastName?: string;
}

/** An order as the Admin API shows it. */
export interface AdminOrder {
    id: string;
    code: string;
    type: string;
    state: string;
    customFields: Record<string, string | null>;
    fulfillments: Array<{ id: string; state: string; method: string; trackingCode: string }>;
    sellerOrders: Array<{ id: string; code: string; state: string }> | null;
    lines: Array<{ id: string; quantity: number }>;
    history: { items: Array<{ type: string; data: Record<string, string> }> };
}

export class Shop {
    catalogue: Catalogue;
    readonly admin: GraphqlClient;
    private server: Process | undefined;
    private worker: Process | undefined;
    private customers = 0;

    constructor(
        private readonly logDir: string,
        readonly settings: ShopSettings,
    ) {
        this.admin = new GraphqlClient(`${this.url}/admin-api`);
    }

    get url(): string {
        return `http://127.0.0.1:${this.settings.port}`;
    }

    get wireFile(): string {
        return path.join(this.logDir, 'wire.jsonl');
    }

    /** Where driver-tracker posts its events. */
    static eventsUrl(port: number): string {
        return `http://127.0.0.1:${port}/driver-tracker/events`;
    }

    /** The first start: makes the schema, fills the shop, and starts the worker. */
    async begin(): Promise<void> {
        await this.startServer();
        await this.login();
        this.catalogue = await fillShop(this.admin);
        this.startWorker();
    }

    async startServer(changes: Partial<ShopSettings> = {}): Promise<void> {
        Object.assign(this.settings, changes);
        this.server = this.spawn('server');
        await this.server.ready(async () => (await fetch(`${this.url}/health`)).ok);
    }

    startWorker(): void {
        this.worker = this.spawn('worker');
    }

    /** Starts the worker if it does not run. */
    recoverWorker(): void {
        if (!this.worker?.running) {
            this.startWorker();
        }
    }

    /** Stops both, and starts them with other settings. */
    async restart(changes: Partial<ShopSettings>): Promise<void> {
        await Promise.all([this.server?.stop(), this.worker?.stop()]);
        await this.startServer(changes);
        this.startWorker();
    }

    /** SIGKILL. */
    async killWorker(): Promise<void> {
        await this.worker?.kill();
    }

    async stop(): Promise<void> {
        await Promise.all([this.server?.stop(), this.worker?.stop()]);
    }

    /** A guest buys and pays, through the Shop API. Gives the id of the order. */
    async buy(purchase: Purchase): Promise<string> {
        const order = await this.checkOut(purchase);
        await order.pay();
        return order.id;
    }

    /** A guest comes as far as paying. */
    async checkOut({ variants, at = { lat: 12.9352, lon: 77.6245 }, lastName = 'Rao' }: Purchase): Promise<{ id: string; pay(): Promise<void> }> {
        const shop = new GraphqlClient(`${this.url}/shop-api`);
        const order = '{ ... on Order { id state } ... on ErrorResult { errorCode message } }';
        for (const id of variants) {
            await shop.mutate(`mutation ($id: ID!) { addItemToOrder(productVariantId: $id, quantity: 2) ${order} }`, { id });
        }
        const emailAddress = `customer-${(this.customers += 1)}-${process.pid}@example.com`;
        await shop.mutate(`mutation ($input: CreateCustomerInput!) { setCustomerForOrder(input: $input) ${order} }`, {
            input: { firstName: 'Meera', lastName, emailAddress },
        });
        await shop.mutate(`mutation ($input: CreateAddressInput!) { setOrderShippingAddress(input: $input) ${order} }`, {
            input: {
                fullName: `Meera ${lastName}`,
                streetLine1: '12 Lake Road',
                city: 'Bengaluru',
                countryCode: 'IN',
                phoneNumber: '+91 80 5550122',
                customFields: at ?? {},
            },
        });
        const { eligibleShippingMethods } = await shop.query(`{ eligibleShippingMethods { id } }`);
        await shop.mutate(`mutation ($id: [ID!]!) { setOrderShippingMethod(shippingMethodId: $id) ${order} }`, {
            id: [eligibleShippingMethods[0].id],
        });
        const { id } = await shop.mutate(`mutation { transitionOrderToState(state: "ArrangingPayment") ${order} }`);
        const pay = async () => {
            await shop.mutate(`mutation ($input: PaymentInput!) { addPaymentToOrder(input: $input) ${order} }`, {
                input: { method: PAYMENT_METHOD, metadata: {} },
            });
        };
        return { id, pay };
    }

    /** Buys of both sellers; gives the aggregate order and the two seller orders. */
    async buyOfBoth(): Promise<{ aggregate: string; sellerOrders: [string, string] }> {
        const { variantA, variantB } = this.catalogue;
        const aggregate = await this.buy({ variants: [variantA, variantB] });
        const ids = (await this.order(aggregate)).sellerOrders?.map(one => one.id) ?? [];
        return { aggregate, sellerOrders: ids as [string, string] };
    }

    /** Buys of seller A alone; gives the id of the seller order. */
    async buyOfA(purchase: Partial<Purchase> = {}): Promise<string> {
        const aggregate = await this.buy({ variants: [this.catalogue.variantA], ...purchase });
        return (await this.order(aggregate)).sellerOrders?.[0]?.id as string;
    }

    async order(id: string): Promise<AdminOrder> {
        const { order } = await this.admin.query(
            `query ($id: ID!) { order(id: $id) {
                id code type state
                customFields { driverTrackerStatus driverTrackerDriver driverTrackerTrackingUrl driverTrackerProblem }
                fulfillments { id state method trackingCode }
                sellerOrders { id code state }
                lines { id quantity }
                history(options: { take: 100 }) { items { type data } }
            } }`,
            { id },
        );
        return { ...order, fulfillments: order.fulfillments ?? [] };
    }

    /** An administrator cancels the whole order. */
    async cancel(orderId: string): Promise<void> {
        const result = '{ ... on Order { id state } ... on ErrorResult { errorCode message } }';
        await this.admin.mutate(`mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) ${result} }`, {
            input: { orderId, reason: 'the customer changed their mind', cancelShipping: true },
        });
    }

    /** What of the outbox waits for an operator. */
    async failedPosts(): Promise<Array<{ id: string; orderId: string; lastError: string }>> {
        return (await this.admin.query(`{ driverTrackerPosts(state: "failed") { id orderId lastError } }`)).driverTrackerPosts;
    }

    async retryPost(id: string): Promise<boolean> {
        return (await this.admin.query(`mutation ($id: ID!) { retryDriverTrackerPost(id: $id) }`, { id })).retryDriverTrackerPost;
    }

    async reconcile(): Promise<{ looked: number; announced: number; resent: number }> {
        return this.admin.mutate(`mutation { reconcileDriverTracker { looked announced resent } }`);
    }

    async login(): Promise<void> {
        await this.admin.mutate(
            `mutation ($username: String!, $password: String!) {
                login(username: $username, password: $password) { ... on CurrentUser { id } ... on ErrorResult { errorCode } }
            }`,
            { username: SUPERADMIN.identifier, password: SUPERADMIN.password },
        );
    }

    private spawn(role: ShopProcessSettings['role']): Process {
        const { databaseUrl, port, serviceUrl, signingSecrets, eventSecrets, ownReadyWhen = false } = this.settings;
        const settings: ShopProcessSettings = {
            role,
            port,
            database: {
                host: databaseUrl.hostname,
                port: Number(databaseUrl.port),
                username: decodeURIComponent(databaseUrl.username),
                password: decodeURIComponent(databaseUrl.password),
                database: databaseUrl.pathname.slice(1),
            },
            serviceUrl,
            signingSecrets,
            eventSecrets,
            ownReadyWhen,
            wireFile: this.wireFile,
            superadmin: SUPERADMIN,
        };
        const main = path.join(__dirname, 'shop-process.js');
        return Process.start(`vendure-${role}`, this.logDir, process.execPath, [main], {
            SHOP_PROCESS: JSON.stringify(settings),
            VENDURE_DISABLE_TELEMETRY: 'true',
            // Far apart, so that no moment is compared in the wrong zone unseen.
            TZ: role === 'server' ? 'Asia/Kolkata' : 'America/Los_Angeles',
        });
    }
}
