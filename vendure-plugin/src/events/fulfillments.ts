import { Injectable } from '@nestjs/common';
import { HistoryEntryType } from '@vendure/common/lib/generated-types';
import {
    EventBus,
    Fulfillment,
    FulfillmentState,
    FulfillmentStateTransitionEvent,
    HistoryService,
    ID,
    isGraphQlErrorResult,
    Order,
    OrderLine,
    OrderService,
    RequestContext,
    StockLevel,
    TransactionalConnection,
} from '@vendure/core';
import { IsNull, Not } from 'typeorm';

import { FULFILLMENT_HANDLER_CODE } from '../constants';
import { TrackedDelivery } from '../entities/tracked-delivery.entity';
import { reuse, Target, unfulfilledLines, wayTo } from './fulfillment-path';

/** Vendure refuses what an event asks for. Another moment or an operator may mend it, so that the event is tried again. */
export class FulfillmentRefusedError extends Error {
    constructor(message: string) {
        super(message);
        this.name = 'FulfillmentRefusedError';
    }
}

/** What is shown on a fulfillment; customers see it too. */
export interface FulfillmentLabel {
    method: string;
    trackingCode: string;
}

/** Drives the fulfillment of a delivery. All of it happens in the transaction of `ctx`. */
@Injectable()
export class Fulfillments {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly orders: OrderService,
        private readonly history: HistoryService,
        private readonly eventBus: EventBus,
    ) {}

    /**
     * The fulfillment of `delivery`: the one that it has, or that another delivery of the order left pending (driver-tracker
     * was restored, and made a new one), if that is of use still, else a new one (state Pending) of what is
     * not fulfilled yet. `undefined` when everything was fulfilled by other means, or the order was cancelled.
     */
    async ensure(
        ctx: RequestContext,
        order: Order,
        delivery: TrackedDelivery,
        label: FulfillmentLabel,
    ): Promise<Fulfillment | undefined> {
        const present = (await this.find(ctx, delivery)) ?? (await this.takeOver(ctx, delivery));
        const ended = delivery.status === 'FAILED' || delivery.status === 'CANCELLED';
        const what = reuse(present?.state, ended);
        if (present && what === 'keep') {
            return present;
        }
        if (present && what === 'replace') {
            await this.transition(ctx, present, 'Cancelled');
        }
        const created = await this.create(ctx, order, label);
        delivery.fulfillmentId = created?.id ?? null;
        return created;
    }

    /**
     * Locks the stock of what the order holds, which Vendure's cancelOrder changes before anything else: after it the order
     * is either cancelled and committed, or is not being cancelled.
     */
    async lockStock(ctx: RequestContext, orderId: ID): Promise<void> {
        const lines = await this.connection.getRepository(ctx, OrderLine).findBy({ order: { id: orderId } });
        const variants = lines.map(line => line.productVariantId);
        if (variants.length > 0) {
            const levels = this.connection.getRepository(ctx, StockLevel).createQueryBuilder('level').select('level.id');
            levels.where('level.productVariantId IN (:...variants)', { variants }).orderBy('level.id', 'ASC');
            await levels.setLock('pessimistic_write').getMany();
        }
    }

    /** The pending fulfillment of an earlier delivery of the same order, which from now on is that of `delivery`. */
    private async takeOver(ctx: RequestContext, delivery: TrackedDelivery): Promise<Fulfillment | undefined> {
        const repository = this.connection.getRepository(ctx, TrackedDelivery);
        const { orderId, deliveryId } = delivery;
        const others = await repository.findBy({ orderId, deliveryId: Not(deliveryId), fulfillmentId: Not(IsNull()) });
        for (const other of others) {
            const fulfillment = await this.find(ctx, other);
            if (fulfillment?.state === 'Pending') {
                await repository.update({ id: other.id }, { fulfillmentId: null });
                delivery.fulfillmentId = fulfillment.id;
                return fulfillment;
            }
        }
        return undefined;
    }

    /** Shows who brings it. */
    async relabel(ctx: RequestContext, fulfillment: Fulfillment, label: FulfillmentLabel): Promise<void> {
        await this.connection.getRepository(ctx, Fulfillment).update({ id: fulfillment.id }, { ...label });
    }

    /** The fulfillment that this delivery has now, whatever its state. */
    async find(ctx: RequestContext, delivery: TrackedDelivery): Promise<Fulfillment | undefined> {
        if (delivery.fulfillmentId === null || delivery.fulfillmentId === undefined) {
            return undefined;
        }
        const found = await this.connection.getRepository(ctx, Fulfillment).findOneBy({ id: delivery.fulfillmentId });
        return found ?? undefined;
    }

    /** Takes it to `target`, through every state between. A fulfillment that is there or beyond stays. */
    async advance(ctx: RequestContext, fulfillment: Fulfillment, target: Target): Promise<void> {
        const way = wayTo(fulfillment.state, target) ?? [target];
        for (const state of way) {
            await this.transition(ctx, fulfillment, state as FulfillmentState);
        }
    }

    /**
     * Cancels it. In an order that is cancelled Vendure has taken the goods back into stock already, and the fulfillment's
     * own transition would do so a second time: there the state alone is changed.
     */
    async cancel(ctx: RequestContext, order: Order, fulfillment: Fulfillment): Promise<void> {
        if (fulfillment.state === 'Cancelled' || fulfillment.state === 'Delivered') {
            return;
        }
        if (order.state !== 'Cancelled') {
            return this.transition(ctx, fulfillment, 'Cancelled');
        }
        const from = fulfillment.state;
        await this.connection.getRepository(ctx, Fulfillment).update({ id: fulfillment.id }, { state: 'Cancelled' });
        fulfillment.state = 'Cancelled';
        await this.history.createHistoryEntryForOrder({
            ctx,
            orderId: order.id,
            type: HistoryEntryType.ORDER_FULFILLMENT_TRANSITION,
            data: { fulfillmentId: fulfillment.id, from, to: 'Cancelled' },
        });
        await this.eventBus.publish(new FulfillmentStateTransitionEvent(from, 'Cancelled', ctx, fulfillment));
    }

    private async create(ctx: RequestContext, order: Order, label: FulfillmentLabel): Promise<Fulfillment | undefined> {
        const lines = await this.unfulfilled(ctx, order.id);
        if (lines.length === 0) {
            return undefined;
        }
        const handler = {
            code: FULFILLMENT_HANDLER_CODE,
            arguments: [
                { name: 'method', value: label.method },
                { name: 'trackingCode', value: label.trackingCode },
            ],
        };
        const result = await this.orders.createFulfillment(ctx, { lines, handler });
        if (isGraphQlErrorResult(result)) {
            throw new FulfillmentRefusedError(`no fulfillment can be created: ${result.message}`);
        }
        return result;
    }

    private async unfulfilled(ctx: RequestContext, orderId: ID): Promise<Array<{ orderLineId: ID; quantity: number }>> {
        const order = await this.connection.getRepository(ctx, Order).findOneOrFail({
            where: { id: orderId },
            relations: { lines: true, fulfillments: { lines: true } },
        });
        const alive = order.fulfillments.filter(one => one.state !== 'Cancelled');
        return unfulfilledLines(
            order.lines,
            alive.flatMap(one => one.lines),
        );
    }

    private async transition(ctx: RequestContext, fulfillment: Fulfillment, state: FulfillmentState): Promise<void> {
        const result = await this.orders.transitionFulfillmentToState(ctx, fulfillment.id, state);
        if (isGraphQlErrorResult(result)) {
            throw new FulfillmentRefusedError(`the fulfillment cannot become ${state}: ${result.transitionError}`);
        }
        fulfillment.state = result.state;
    }
}
