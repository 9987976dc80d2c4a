import { Inject, Injectable } from '@nestjs/common';
import { ID, Order, ShippingLine, TransactionalConnection } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, FULFILLMENT_HANDLER_CODE } from '../constants';
import { TrackedDelivery } from '../entities/tracked-delivery.entity';
import type { ResolvedOptions } from '../options';

/** In these nothing is left for a driver to bring. */
const OVER = ['Cancelled', 'Shipped', 'PartiallyShipped', 'Delivered', 'PartiallyDelivered'];

/** Whether there is anything for driver-tracker to do. Both give the reason why not, in words. */
@Injectable()
export class Need {
    constructor(
        private readonly connection: TransactionalConnection,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: Pick<ResolvedOptions, 'anyShippingMethod'>,
    ) {}

    /** By how the order is shipped. A seller order without shipping of its own is shipped as its aggregate is. */
    async notByDriver(order: Order): Promise<string | undefined> {
        const lines = order.shippingLines.length > 0 ? order.shippingLines : await this.shippingOf(order.aggregateOrderId);
        if (lines.length === 0) {
            return 'the order has no shipping';
        }
        const ours = lines.some(({ shippingMethod }) => shippingMethod?.fulfillmentHandlerCode === FULFILLMENT_HANDLER_CODE);
        return ours || this.options.anyShippingMethod
            ? undefined
            : `no shipping method of the order has the fulfillment handler ${FULFILLMENT_HANDLER_CODE}`;
    }

    /** By the order's state as it is at this moment, unless the plugin itself has brought it there. */
    async over(orderId: ID): Promise<string | undefined> {
        const order = await this.connection.rawConnection.getRepository(Order).findOneByOrFail({ id: orderId });
        if (!OVER.includes(order.state)) {
            return undefined;
        }
        const heard = await this.connection.rawConnection.getRepository(TrackedDelivery).existsBy({ orderId });
        return order.state !== 'Cancelled' && heard ? undefined : `the order was ${order.state} before it was sent`;
    }

    private async shippingOf(aggregateOrderId: ID | undefined): Promise<ShippingLine[]> {
        if (aggregateOrderId === undefined || aggregateOrderId === null) {
            return [];
        }
        const aggregate = await this.connection.rawConnection
            .getRepository(Order)
            .findOne({ where: { id: aggregateOrderId }, relations: { shippingLines: { shippingMethod: true } } });
        return aggregate?.shippingLines ?? [];
    }
}
