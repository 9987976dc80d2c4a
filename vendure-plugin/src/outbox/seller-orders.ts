import { Inject, Injectable } from '@nestjs/common';
import { ID, Order, TransactionalConnection } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS } from '../constants';
import type { ResolvedOptions } from '../options';
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
     * Announces one order if the state that it is in calls for it and it was not announced before. The order's row is
     * locked meanwhile, so that a cancellation at the same time either sees the entry or is seen.
     */
    async announce(orderId: ID): Promise<boolean> {
        return this.connection.withTransaction(async ctx => {
            const repository = this.connection.getRepository(ctx, Order);
            const locked = await repository
                .createQueryBuilder('order')
                .select('order.id')
                .where('order.id = :orderId', { orderId })
                .setLock('pessimistic_write')
                .getOne();
            const order = locked && (await repository.findOne({ where: { id: orderId }, relations: { lines: true } }));
            if (!order || !(await this.options.readyWhen({ toState: order.state, order }))) {
                return false;
            }
            return this.outbox.add(ctx, order.id, 'ready');
        });
    }
}
