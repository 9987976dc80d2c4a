import { Inject, Injectable } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { OrderType } from '@vendure/common/lib/generated-types';
import { Injector, Logger } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import type { OutboxEntry } from '../entities/outbox-entry.entity';
import type { ResolvedOptions } from '../options';
import { DeliveryFields } from './delivery-fields';
import { cancelledBody, readyBody, ReadyBody, UndeliverableOrderError } from './order-body';
import { OrderInChannel, OrderReader } from './order-reader';
import { Finish, OutboxService } from './outbox.service';
import { SellerOrders } from './seller-orders';
import { ServiceClient } from './service-client';

/** Works off one claimed entry: looks at the order as it stands now, posts, writes down what came of it. */
@Injectable()
export class Courier {
    private readonly injector: Injector;

    constructor(
        private readonly orders: OrderReader,
        private readonly sellerOrders: SellerOrders,
        private readonly client: ServiceClient,
        private readonly outbox: OutboxService,
        private readonly fields: DeliveryFields,
        moduleRef: ModuleRef,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {
        this.injector = new Injector(moduleRef);
    }

    /** Never throws for what is wrong with one order; the database being out is the caller's. */
    async deliver(entry: OutboxEntry): Promise<void> {
        const found = await this.orders.find(entry.orderId);
        const finish = found ? await this.attempt(entry, found) : { outcome: 'skipped' as const, note: 'the order is gone' };
        const finished = await this.outbox.finish(entry, finish);
        if (!finished) {
            Logger.warn(`The lease of outbox entry ${entry.id} ended before the post did`, LOGGER_CONTEXT);
            return;
        }
        if (finished.state === 'failed' && found) {
            await this.tellOperator(entry, found, finished.error ?? '');
        } else if (finished.state === 'sent' && found && entry.kind === 'ready') {
            await this.fields.set(found.ctx, found.order.id, { driverTrackerProblem: null });
        } else if (finished.state === 'pending') {
            const line = `Order ${found?.order.code} (${entry.kind}) was not taken, try ${entry.attempts}: ${finished.error}`;
            Logger.warn(line, LOGGER_CONTEXT);
        }
    }

    private async attempt(entry: OutboxEntry, found: OrderInChannel): Promise<Finish> {
        if (entry.kind === 'cancelled') {
            return this.client.post('cancelled', cancelledBody(found));
        }
        if (found.order.type === OrderType.Aggregate) {
            await this.sellerOrders.announceOf(found.order.id);
            return { outcome: 'skipped', note: 'an aggregate order: its seller orders are delivered' };
        }
        if (found.order.state === 'Cancelled') {
            return { outcome: 'skipped', note: 'the order was cancelled before it was sent' };
        }
        try {
            return await this.client.post('ready', await this.body(found));
        } catch (error) {
            if (error instanceof UndeliverableOrderError) {
                return { outcome: 'parked', error: error.message };
            }
            // A hook of the shop's may ask a geocoder, which may be out.
            return { outcome: 'retry', error: `the order could not be read: ${(error as Error).message}` };
        }
    }

    private async body(found: OrderInChannel): Promise<ReadyBody> {
        const { resolvePickup, resolveDropoff, metadata } = this.options;
        const deliverable = { ...found, injector: this.injector };
        return readyBody(
            found,
            await resolvePickup(deliverable),
            await resolveDropoff(deliverable),
            await metadata(deliverable),
        );
    }

    /** What is parked waits for somebody: they find it in the order, in its history, and in the log. */
    private async tellOperator(entry: OutboxEntry, { ctx, order }: OrderInChannel, error: string): Promise<void> {
        const what = entry.kind === 'ready' ? 'not taken for delivery' : 'not called off';
        Logger.error(`Order ${order.code} was ${what}: ${error}`, LOGGER_CONTEXT);
        await this.fields.set(ctx, order.id, { driverTrackerProblem: `${what}: ${error}` });
        await this.fields.note(ctx, order.id, `${what}: ${error}`);
    }
}
