import { Inject, Injectable } from '@nestjs/common';
import { ModuleRef } from '@nestjs/core';
import { OrderType } from '@vendure/common/lib/generated-types';
import { Injector, Logger, Order, RequestContext, TransactionalConnection } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import type { AskedTransition, OutboxEntry } from '../entities/outbox-entry.entity';
import type { ReadyTransition, ResolvedOptions } from '../options';
import { before } from './deadline';
import { DeliveryFields } from './delivery-fields';
import { Need } from './need';
import { cancelledBody, readyBody, ReadyBody, UndeliverableOrderError } from './order-body';
import { OrderInChannel, OrderReader } from './order-reader';
import { Finish, Finished, OutboxService } from './outbox.service';
import { SellerOrders } from './seller-orders';
import { ServiceClient } from './service-client';

/** Works off one claimed entry: looks at the order as it stands now, posts, writes down what came of it. */
@Injectable()
export class Courier {
    private readonly injector: Injector;

    constructor(
        private readonly connection: TransactionalConnection,
        private readonly orders: OrderReader,
        private readonly sellerOrders: SellerOrders,
        private readonly need: Need,
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
        const { found, finish } = await this.work(entry);
        const finished = await this.connection.withTransaction(found?.ctx ?? RequestContext.empty(), ctx =>
            this.finish(ctx, entry, found, finish),
        );
        const name = `Order ${found?.order.code ?? entry.orderId} (${entry.kind})`;
        if (!finished) {
            Logger.warn(`${name}: the lease ended before the post did`, LOGGER_CONTEXT);
        } else if (finished.state === 'failed') {
            Logger.error(`${name} is parked: ${finished.error}`, LOGGER_CONTEXT);
        } else if (finished.state === 'pending' && finished.error) {
            Logger.warn(`${name} was not taken, try ${entry.attempts}: ${finished.error}`, LOGGER_CONTEXT);
        }
    }

    private async work(entry: OutboxEntry): Promise<{ found?: OrderInChannel; finish: Finish }> {
        let found: OrderInChannel | undefined;
        try {
            found = await this.orders.find(entry.orderId);
        } catch (error) {
            return { finish: { outcome: 'retry', error: (error as Error).message } };
        }
        return { found, finish: found ? await this.attempt(entry, found) : { outcome: 'skipped', note: 'the order is gone' } };
    }

    /** Writes down what came of it, and shows it in the order, in one transaction: nothing is parked unseen. */
    private async finish(
        ctx: RequestContext,
        entry: OutboxEntry,
        found: OrderInChannel | undefined,
        finish: Finish,
    ): Promise<Finished | undefined> {
        const finished = await this.outbox.finish(ctx, entry, finish);
        if (found && finished?.state === 'failed') {
            const what = entry.kind === 'ready' ? 'not taken for delivery' : 'not called off';
            await this.fields.set(ctx, found.order.id, { driverTrackerProblem: `${what}: ${finished.error}` });
            await this.fields.note(ctx, found.order.id, `${what}: ${finished.error}`);
        } else if (found && finished?.state === 'sent' && entry.lastError !== null) {
            await this.fields.set(ctx, found.order.id, { driverTrackerProblem: null });
        }
        return finished;
    }

    /** Ends within `timeoutMs`, hooks included, so that the lease outlasts it. */
    private async attempt(entry: OutboxEntry, found: OrderInChannel): Promise<Finish> {
        const deadline = AbortSignal.timeout(this.options.timeoutMs);
        if (entry.kind === 'cancelled') {
            return this.client.post('cancelled', cancelledBody(found), deadline);
        }
        if (found.order.type === OrderType.Aggregate) {
            await this.sellerOrders.announceOf(found.order.id);
            return { outcome: 'skipped', note: 'an aggregate order: its seller orders are delivered' };
        }
        if (found.order.state === 'Cancelled') {
            return { outcome: 'skipped', note: 'the order was cancelled before it was sent' };
        }
        const needless = await this.need.notByDriver(found.order);
        if (needless) {
            return { outcome: 'skipped', note: needless };
        }
        if (entry.asked) {
            return this.ask(entry.asked, found.order, deadline);
        }
        try {
            const body = await before(deadline, 'resolvePickup, resolveDropoff or metadata', () => this.body(found));
            // The hooks may have taken long, and the order may have waited.
            const over = await this.need.over(found.order.id);
            return over ? { outcome: 'skipped', note: over } : await this.client.post('ready', body, deadline);
        } catch (error) {
            if (error instanceof UndeliverableOrderError) {
                return { outcome: 'parked', error: error.message };
            }
            // A hook of the shop's may ask a geocoder, which may be out.
            return { outcome: 'retry', error: `the order could not be read: ${(error as Error).message}` };
        }
    }

    /** Whether `readyWhen` says yes to one of the transitions. */
    private async ask(asked: AskedTransition[], order: Order, deadline: AbortSignal): Promise<Finish> {
        const { readyWhen } = this.options;
        try {
            for (const transition of asked) {
                const question = { ...(transition as Omit<ReadyTransition, 'order'>), order };
                if (await before(deadline, 'readyWhen', () => readyWhen(question))) {
                    return { outcome: 'ready' };
                }
            }
            return { outcome: 'unready' };
        } catch (error) {
            return { outcome: 'retry', error: `readyWhen gave no answer: ${(error as Error).message}` };
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
}
