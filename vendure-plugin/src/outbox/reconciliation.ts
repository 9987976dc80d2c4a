import { Inject, Injectable } from '@nestjs/common';
import { OrderType } from '@vendure/common/lib/generated-types';
import { ID, Logger, Order, TransactionalConnection } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import { OutboxEntry } from '../entities/outbox-entry.entity';
import type { ResolvedOptions } from '../options';
import { SellerOrders } from './seller-orders';

const PAGE = 100;
/** At most this many pages in one run; the next run begins anew, and finds fewer. */
const MAX_PAGES = 50;

/** What a run found. */
export interface ReconciliationReport {
    looked: number;
    announced: number;
}

/**
 * Finds orders that should have a delivery and have no entry in the outbox, and announces them: orders of before the plugin
 * was there, or whose state was written past Vendure's services. Running it twice, or in several processes, does no harm.
 */
@Injectable()
export class Reconciliation {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly sellerOrders: SellerOrders,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    /** Looks once through the orders of the window. */
    async run(): Promise<ReconciliationReport> {
        const report: ReconciliationReport = { looked: 0, announced: 0 };
        const since = new Date(Date.now() - this.options.reconcileWindowMs);
        let after: ID | undefined;
        for (let page = 0; page < MAX_PAGES; page += 1) {
            const ids = await this.page(since, after);
            for (const id of ids) {
                report.looked += 1;
                report.announced += (await this.sellerOrders.announce(id)) ? 1 : 0;
            }
            after = ids.at(-1);
            if (ids.length < PAGE) {
                break;
            }
        }
        if (report.announced > 0) {
            Logger.warn(`${report.announced} orders were not announced for delivery; they are now`, LOGGER_CONTEXT);
        }
        return report;
    }

    /** Ids of placed orders without an entry, in ascending order. */
    private async page(since: Date, after: ID | undefined): Promise<ID[]> {
        const query = this.connection.rawConnection.getRepository(Order).createQueryBuilder('order').select('order.id');
        const announced = query
            .subQuery()
            .select('1')
            .from(OutboxEntry, 'entry')
            .where('entry.orderId = order.id')
            .andWhere("entry.kind = 'ready'")
            .getQuery();
        query
            .where('order.type != :aggregate', { aggregate: OrderType.Aggregate })
            .andWhere('order.active = :active', { active: false })
            .andWhere('order.state != :cancelled', { cancelled: 'Cancelled' })
            .andWhere('order.orderPlacedAt >= :since', { since })
            .andWhere(`NOT EXISTS ${announced}`)
            .orderBy('order.id', 'ASC')
            .take(PAGE);
        if (after !== undefined) {
            query.andWhere('order.id > :after', { after });
        }
        return (await query.getMany()).map(order => order.id);
    }
}
