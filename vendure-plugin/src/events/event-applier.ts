import { Injectable } from '@nestjs/common';
import { Order, RequestContext, TransactionalConnection } from '@vendure/core';

import { OrderDeliveryFields } from '../custom-fields';
import { TrackedDelivery } from '../entities/tracked-delivery.entity';
import { DeliveryFields } from '../outbox/delivery-fields';
import { OrderInChannel, OrderReader } from '../outbox/order-reader';
import { OutboxService } from '../outbox/outbox.service';
import { DeliveryEvent, isKnown, KnownEvent, NoEventError } from './event';
import { FulfillmentLabel, FulfillmentRefusedError, Fulfillments } from './fulfillments';
import { retried } from './retried';

/** What became of an event: it had its effect, or it came twice or after a later one. */
export type Applied = 'applied' | 'stale';

/** Everything that an event works on, within its transaction. */
interface Scene {
    ctx: RequestContext;
    order: Order;
    delivery: TrackedDelivery;
    event: DeliveryEvent;
}

/**
 * Applies events, each in one transaction with the note that it was: whole or not at all, once, in the order of their
 * `sequence`. An event that comes twice, or after a later one, changes nothing.
 *
 * Locks are taken as Vendure's cancelOrder takes them: stock, fulfillment, and the order's own row last (`show`).
 */
@Injectable()
export class EventApplier {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly orders: OrderReader,
        private readonly fulfillments: Fulfillments,
        private readonly fields: DeliveryFields,
        private readonly outbox: OutboxService,
    ) {}

    /** Resolves after the commit. Throws `NoEventError` for an order that is not here; everything else may be tried again. */
    async apply(event: DeliveryEvent): Promise<Applied> {
        const orderId = this.orders.parseId(event.sellerOrderId);
        const found = orderId === undefined ? undefined : await this.orders.find(orderId);
        if (!found) {
            throw new NoEventError(422, `there is no order ${event.sellerOrderId} here`);
        }
        try {
            return await retried(() => this.applyTo(found, event));
        } catch (error) {
            if (error instanceof FulfillmentRefusedError) {
                // Nothing else of this attempt is left in the database.
                await this.fields.set(found.ctx, found.order.id, { driverTrackerProblem: error.message });
            }
            throw error;
        }
    }

    private applyTo(found: OrderInChannel, event: DeliveryEvent): Promise<Applied> {
        return this.connection.withTransaction(found.ctx, async ctx => {
            await this.boundWaits(ctx);
            const delivery = await this.lock(ctx, event.deliveryId, found.order);
            if (event.sequence <= delivery.lastSequence) {
                return 'stale';
            }
            await this.fulfillments.lockStock(ctx, found.order.id);
            // Read now: the locks may have been waited for, and the order been cancelled meanwhile.
            const order = await this.connection.getRepository(ctx, Order).findOneByOrFail({ id: found.order.id });
            if (isKnown(event.event)) {
                await this.effect(event.event, { ctx, order, delivery, event });
                delivery.status = event.status ?? delivery.status;
            }
            delivery.lastSequence = event.sequence;
            await this.connection.getRepository(ctx, TrackedDelivery).save(delivery);
            return 'applied';
        });
    }

    /** Gives way before PostgreSQL ends a deadlock (after a second), so that it is never the administrator who is refused. */
    private async boundWaits(ctx: RequestContext): Promise<void> {
        if (['postgres', 'aurora-postgres'].includes(this.connection.rawConnection.options.type)) {
            await this.connection.getRepository(ctx, Order).query("SET LOCAL lock_timeout = '500ms'");
        }
    }

    /** The delivery's row, made if need be, and held until the transaction ends. */
    private async lock(ctx: RequestContext, deliveryId: string, order: Order): Promise<TrackedDelivery> {
        const repository = this.connection.getRepository(ctx, TrackedDelivery);
        const values = { deliveryId, orderId: order.id };
        await repository.createQueryBuilder().insert().values(values).orIgnore().updateEntity(false).execute();
        const query = repository.createQueryBuilder('delivery').where('delivery.deliveryId = :deliveryId', { deliveryId });
        return query.setLock('pessimistic_write').getOneOrFail();
    }

    private effect(name: KnownEvent, scene: Scene): Promise<void> {
        if (scene.order.state === 'Cancelled' && name !== 'DELIVERY_CANCELLED_V1') {
            return this.ofCancelledOrder(name, scene);
        }
        switch (name) {
            case 'DELIVERY_ASSIGNED_V1':
                return this.assigned(scene);
            case 'DELIVERY_UNASSIGNED_V1':
                return this.unassigned(scene);
            case 'DELIVERY_PICKED_UP_V1':
                return this.advanced(scene, 'Shipped');
            case 'DELIVERY_DELIVERED_V1':
                return this.advanced(scene, 'Delivered');
            case 'DELIVERY_FAILED_V1':
                return this.failed(scene);
            case 'DELIVERY_CANCELLED_V1':
                return this.cancelled(scene);
        }
    }

    /** Nobody should be on their way: it is called off once more. Fulfillments, stock and the problem that is told stay. */
    private async ofCancelledOrder(name: KnownEvent, scene: Scene): Promise<void> {
        const { ctx, order, event } = scene;
        if (name === 'DELIVERY_DELIVERED_V1') {
            await this.fields.note(ctx, order.id, 'it was delivered, although the order is cancelled');
        } else if (name !== 'DELIVERY_FAILED_V1') {
            await this.outbox.callOff(ctx, order.id);
        }
        await this.show(scene, { driverTrackerDriver: driverLine(event) });
    }

    private async assigned(scene: Scene): Promise<void> {
        const { ctx, order, delivery, event } = scene;
        const fulfillment = await this.fulfillments.ensure(ctx, order, delivery, label(event));
        if (fulfillment) {
            await this.fulfillments.relabel(ctx, fulfillment, label(event));
        } else {
            await this.fields.note(ctx, order.id, 'a driver has the order, and nothing of it is left to be fulfilled');
        }
        await this.show(scene, { driverTrackerDriver: driverLine(event), driverTrackerProblem: null });
    }

    /** The pending fulfillment stays, for the next driver. */
    private async unassigned(scene: Scene): Promise<void> {
        const { ctx, delivery, event } = scene;
        const fulfillment = await this.fulfillments.find(ctx, delivery);
        if (fulfillment) {
            await this.fulfillments.relabel(ctx, fulfillment, label({ ...event, driver: undefined }));
        }
        await this.show(scene, { driverTrackerDriver: null });
    }

    private async advanced(scene: Scene, target: 'Shipped' | 'Delivered'): Promise<void> {
        const { ctx, order, delivery, event } = scene;
        const fulfillment = await this.fulfillments.ensure(ctx, order, delivery, label(event));
        if (fulfillment) {
            await this.fulfillments.advance(ctx, fulfillment, target);
        }
        await this.show(scene, { driverTrackerDriver: driverLine(event), driverTrackerProblem: null });
    }

    /** The fulfillment stays as it is: whether the goods come back is known when somebody tries again, or cancels. */
    private async failed(scene: Scene): Promise<void> {
        const { ctx, order, event } = scene;
        const why = [event.failure?.code, event.failure?.reason].filter(Boolean).join(', ') || 'no reason given';
        const sentence = `the delivery failed (${why})`;
        await this.fields.note(ctx, order.id, sentence);
        await this.show(scene, { driverTrackerProblem: sentence });
    }

    private async cancelled(scene: Scene): Promise<void> {
        const { ctx, order, delivery, event } = scene;
        await this.fields.note(ctx, order.id, `the delivery was cancelled (${event.reason ?? 'no reason given'})`);
        const fulfillment = await this.fulfillments.find(ctx, delivery);
        if (fulfillment) {
            await this.fulfillments.cancel(ctx, order, fulfillment);
        }
        await this.show(scene, { driverTrackerDriver: null });
    }

    private show({ ctx, order, event }: Scene, fields: OrderDeliveryFields): Promise<void> {
        const driverTrackerStatus = event.status ?? null;
        const driverTrackerTrackingUrl = event.trackingUrl ?? null;
        return this.fields.set(ctx, order.id, { driverTrackerStatus, driverTrackerTrackingUrl, ...fields });
    }
}

/** For administrators: name and number. */
function driverLine({ driver }: DeliveryEvent): string | null {
    return [driver?.name, driver?.phone].filter(Boolean).join(', ').slice(0, 400) || null;
}

/** For everybody who may see the order, the customer too: the driver's name, and a link or the delivery's id. */
function label({ driver, trackingUrl, deliveryId }: DeliveryEvent): FulfillmentLabel {
    const method = driver?.name ? `Driver: ${driver.name}` : 'Driver';
    return { method: method.slice(0, 255), trackingCode: (trackingUrl ?? deliveryId).slice(0, 255) };
}
