import { Inject, Injectable } from '@nestjs/common';
import { ID, Order, OrderState, TransactionalConnection } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS } from '../constants';
import { readyByDefault, ResolvedOptions } from '../options';
import { OutboxService } from './outbox.service';

/** Announces orders whose transition nobody saw. */
@Injectable()
export class SellerOrders {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly outbox: OutboxService,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    /**
     * Announces the seller orders of an aggregate. They may begin in their state, as the shop's OrderSellerStrategy
     * likes, and then make no transition of their own.
     */
    async announceOf(aggregateOrderId: ID): Promise<number> {
        const orders = await this.connection.rawConnection
            .getRepository(Order)
            .find({ where: { aggregateOrderId }, select: { id: true }, order: { id: 'ASC' } });
        let announced = 0;
        for (const { id } of orders) {
            announced += (await this.announce(id)) ? 1 : 0;
        }
        return announced;
    }

    /**
     * Announces one order if the state that it is in calls for it and it was not announced before; where that is for the
     * shop's `readyWhen` to say, has it asked. The order's row is locked meanwhile, so that a cancellation at the same time
     * either sees the entry or is seen.
     *
     * @param decided the state for which `readyWhen` has said yes already
     */
    async announce(orderId: ID, decided?: OrderState): Promise<boolean> {
        return this.connection.withTransaction(async ctx => {
            const order = await this.connection
                .getRepository(ctx, Order)
                .createQueryBuilder('order')
                .where('order.id = :orderId', { orderId })
                .setLock('pessimistic_write')
                .getOne();
            if (!order || order.state === 'Cancelled') {
                return false;
            }
            if (order.state === decided) {
                return this.outbox.add(ctx, order.id, 'ready');
            }
            if (this.options.readyWhen !== readyByDefault) {
                return this.outbox.ask(ctx, order.id, { toState: order.state });
            }
            return (await readyByDefault({ toState: order.state, order })) && this.outbox.add(ctx, order.id, 'ready');
        });
    }
}
