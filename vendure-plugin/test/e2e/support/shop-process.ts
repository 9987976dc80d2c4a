/** One process of the shop: Vendure's server, or its worker. Told what to be by `SHOP_PROCESS`, as JSON. */
import 'reflect-metadata';

import { json } from 'express';
import { bootstrap, bootstrapWorker, DefaultLogger, dummyPaymentHandler, LogLevel, VendureConfig } from '@vendure/core';
// As a shop does: the built package, by its name.
import { DeliverableOrder, DriverTrackerPlugin, EVENTS_PATH, ReadyTransition } from 'vendure-plugin-driver-tracker';

import { TwoSellerStrategy } from './marketplace';
import { noteIncoming, noteOutgoing } from './wire';

export interface ShopProcessSettings {
    role: 'server' | 'worker';
    port: number;
    database: { host: string; port: number; username: string; password: string; database: string };
    serviceUrl: string;
    signingSecrets: string[];
    eventSecrets: string[];
    /** Whether the shop has a `readyWhen` of its own. */
    ownReadyWhen: boolean;
    /** Where every body that is sent and taken is noted. */
    wireFile: string;
    superadmin: { identifier: string; password: string };
}

/** Orders of this customer carry more metadata than driver-tracker takes. */
export const VERBOSE_CUSTOMER = 'Verbose';
/** For orders of this customer the shop's hook never ends. */
export const SILENT_CUSTOMER = 'Silent';

function metadata({ order }: DeliverableOrder): Record<string, unknown> | Promise<never> {
    switch (order.customer?.lastName) {
        case VERBOSE_CUSTOMER:
            return { text: 'x'.repeat(5_000) };
        case SILENT_CUSTOMER:
            return new Promise(() => {});
        default:
            return { code: order.code };
    }
}

/** For orders of this customer the shop's `readyWhen` never ends. */
export const UNDECIDED_CUSTOMER = 'Undecided';
/** For orders of this customer it throws, as long as they weigh on seller A. */
export const DISPUTED_CUSTOMER = 'Disputed';

function readyWhen({ toState, order }: ReadyTransition): boolean | Promise<never> {
    // Each of these throws where a relation was not read.
    const methods = order.shippingLines.map(line => line.shippingMethod.code);
    const skus = order.lines.map(line => line.productVariant.sku);
    const lastName = order.customer?.lastName;
    if (order.surcharges.length > 0 || order.channels.length === 0 || methods.length > 1 || !lastName) {
        throw new Error('this order was not read whole');
    }
    if (lastName === UNDECIDED_CUSTOMER) {
        return new Promise(() => {});
    }
    if (lastName === DISPUTED_CUSTOMER && skus.includes('sku-dosa')) {
        throw new Error('the hook is broken');
    }
    return toState === 'PaymentSettled';
}

function configure(settings: ShopProcessSettings): VendureConfig {
    return {
        apiOptions: {
            port: settings.port,
            hostname: '127.0.0.1',
            adminApiPath: 'admin-api',
            shopApiPath: 'shop-api',
            middleware: [
                // As shops do that take larger bodies.
                { route: '/', handler: json({ limit: '2mb' }), beforeListen: true },
                noteIncoming(settings.wireFile, `/${EVENTS_PATH}`),
            ],
        },
        authOptions: { tokenMethod: 'bearer', superadminCredentials: settings.superadmin },
        dbConnectionOptions: { type: 'postgres', synchronize: true, ...settings.database },
        logger: new DefaultLogger({ level: LogLevel.Info, timestamp: true }),
        orderOptions: { orderSellerStrategy: new TwoSellerStrategy() },
        paymentOptions: { paymentMethodHandlers: [dummyPaymentHandler] },
        plugins: [
            DriverTrackerPlugin.init({
                serviceUrl: settings.serviceUrl,
                signingSecrets: settings.signingSecrets,
                eventSecrets: settings.eventSecrets,
                metadata,
                readyWhen: settings.ownReadyWhen ? readyWhen : undefined,
                pollIntervalMs: 100,
                timeoutMs: 4_000,
                leaseMs: 5_000,
                retryBaseMs: 100,
                retryMaxMs: 500,
            }),
        ],
    };
}

async function main(): Promise<void> {
    const settings = JSON.parse(process.env.SHOP_PROCESS ?? '') as ShopProcessSettings;
    noteOutgoing(settings.wireFile);
    const config = configure(settings);
    if (settings.role === 'server') {
        await bootstrap(config);
    } else {
        await bootstrapWorker(config);
    }
}

if (require.main === module) {
    main().catch(error => {
        console.error(error);
        process.exit(1);
    });
}
