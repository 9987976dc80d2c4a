import { Injectable } from '@nestjs/common';
import { HistoryEntryType } from '@vendure/common/lib/generated-types';
import { HistoryService, ID, Order, RequestContext, TransactionalConnection } from '@vendure/core';

import type { OrderDeliveryFields } from '../custom-fields';

/** What an administrator sees of a delivery in its order: the read-only custom fields, and notes in the history. */
@Injectable()
export class DeliveryFields {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly history: HistoryService,
    ) {}

    /** Changes those fields that are given, in the transaction of `ctx`. */
    async set(ctx: RequestContext, orderId: ID, fields: OrderDeliveryFields): Promise<void> {
        // The type of `customFields` is the shop's own, and not known here.
        const customFields = fields as Record<string, never>;
        await this.connection.getRepository(ctx, Order).update({ id: orderId }, { customFields });
    }

    /** A note for administrators, in the transaction of `ctx`. */
    async note(ctx: RequestContext, orderId: ID, sentence: string): Promise<void> {
        const data = { note: `driver-tracker: ${sentence}` };
        await this.history.createHistoryEntryForOrder({ ctx, orderId, type: HistoryEntryType.ORDER_NOTE, data }, false);
    }
}
