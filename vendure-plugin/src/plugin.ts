import { PluginCommonModule, RuntimeVendureConfig, Type, VendurePlugin } from '@vendure/core';

import { AdminApiResolver, adminApiSchema } from './admin/admin-api';
import { DRIVER_TRACKER_OPTIONS, EVENTS_PATH } from './constants';
import { withDriverTrackerFields } from './custom-fields';
import { OutboxEntry } from './entities/outbox-entry.entity';
import { TrackedDelivery } from './entities/tracked-delivery.entity';
import { EventApplier } from './events/event-applier';
import { EventsController } from './events/events.controller';
import { Fulfillments } from './events/fulfillments';
import { rawBody } from './events/raw-body';
import { driverTrackerFulfillmentHandler } from './fulfillment-handler';
import { DriverTrackerOptions, DriverTrackerOptionsError, ResolvedOptions, resolveOptions } from './options';
import { Courier } from './outbox/courier';
import { DeliveryFields } from './outbox/delivery-fields';
import { Need } from './outbox/need';
import { OrderListener } from './outbox/order-listener';
import { OrderReader } from './outbox/order-reader';
import { OutboxService } from './outbox/outbox.service';
import { OutboxPoller } from './outbox/poller';
import { Reconciliation } from './outbox/reconciliation';
import { SellerOrders } from './outbox/seller-orders';
import { ServiceClient } from './outbox/service-client';

/**
 * Has the orders of the shop delivered by driver-tracker.
 *
 * ```ts
 * plugins: [
 *     DriverTrackerPlugin.init({
 *         serviceUrl: 'https://tracker.example.com',
 *         signingSecrets: process.env.DRIVER_TRACKER_SIGNING_SECRETS!.split(','),
 *         eventSecrets: process.env.DRIVER_TRACKER_EVENT_SECRETS!.split(','),
 *     }),
 * ]
 * ```
 */
@VendurePlugin({
    imports: [PluginCommonModule],
    compatibility: '^3.0.0',
    entities: [OutboxEntry, TrackedDelivery],
    controllers: [EventsController],
    providers: [
        { provide: DRIVER_TRACKER_OPTIONS, useFactory: () => DriverTrackerPlugin.resolvedOptions() },
        Courier,
        DeliveryFields,
        EventApplier,
        Fulfillments,
        Need,
        OrderListener,
        OrderReader,
        OutboxPoller,
        OutboxService,
        Reconciliation,
        SellerOrders,
        ServiceClient,
    ],
    adminApiExtensions: { schema: adminApiSchema, resolvers: [AdminApiResolver] },
    configuration: config => configure(config),
})
export class DriverTrackerPlugin {
    private static options: ResolvedOptions | undefined;

    /** Checks the options at once: one that cannot work throws `DriverTrackerOptionsError`. */
    static init(options: DriverTrackerOptions): Type<DriverTrackerPlugin> {
        this.options = resolveOptions(options);
        return this;
    }

    /** @internal */
    static resolvedOptions(): ResolvedOptions {
        if (!this.options) {
            throw new DriverTrackerOptionsError('object', 'is missing: call DriverTrackerPlugin.init({ serviceUrl, … })');
        }
        return this.options;
    }
}

function configure(config: RuntimeVendureConfig): RuntimeVendureConfig {
    config.customFields = withDriverTrackerFields(config.customFields);
    config.shippingOptions.fulfillmentHandlers = [
        ...(config.shippingOptions.fulfillmentHandlers ?? []),
        driverTrackerFulfillmentHandler,
    ];
    // Before every parser, Vendure's and the shop's, which would leave nothing of the bytes that were signed.
    config.apiOptions.middleware = [
        { route: `/${EVENTS_PATH}`, handler: rawBody(), beforeListen: true },
        ...config.apiOptions.middleware,
    ];
    return config;
}
