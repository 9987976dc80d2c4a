import { Inject, Injectable } from '@nestjs/common';
import { OrderType } from '@vendure/common/lib/generated-types';
import { ID, Logger, Order, OrderState, TransactionalConnection } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import { OutboxEntry } from '../entities/outbox-entry.entity';
import { readyByDefault, ResolvedOptions } from '../options';
import { before } from './deadline';
import { OrderReader } from './order-reader';
import { OutboxService } from './outbox.service';
import { SellerOrders } from './seller-orders';

const PAGE = 100;

/** What a run found. */
export interface ReconciliationReport {
    looked: number;
    announced: number;
    resent: number;
}

/**
 * Finds orders that should have a delivery and have none, and has them sent: those without an entry in the outbox (orders of
 * before the plugin was there, or whose state was written past Vendure's services), and those that driver-tracker took and
 * of which no event ever came. Running it twice, or in several processes, does no harm.
 */
@Injectable()
export class Reconciliation {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly orders: OrderReader,
        private readonly sellerOrders: SellerOrders,
        private readonly outbox: OutboxService,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    /** Looks once through the orders of the window. */
    async run(): Promise<ReconciliationReport> {
        const since = new Date(Date.now() - this.options.reconcileWindowMs);
        const report = { looked: 0, announced: 0, resent: await this.resend(since.getTime()) };
        let after: ID | undefined;
        for (;;) {
            const ids = await this.page(since, after);
            for (const id of ids) {
                report.looked += 1;
                report.announced += (await this.announce(id)) ? 1 : 0;
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

    /** What driver-tracker knows it answers with `duplicate`, and what it has lost it takes. */
    private async resend(since: number): Promise<number> {
        const quietSince = Date.now() - this.options.resendAfterMs;
        const resent = await this.outbox.resendUnheard(since, quietSince);
        if (resent > 0) {
            Logger.info(`${resent} orders were sent long ago and no event came of them; they are sent again`, LOGGER_CONTEXT);
        }
        return resent;
    }

    /**
     * One order at fault does not keep the others from being found. A hook that says no leaves nothing behind; one that throws
     * or never ends is asked again by the poller, which counts how often.
     */
    private async announce(id: ID): Promise<boolean> {
        try {
            const decided = await this.decided(id);
            return decided !== false && (await this.sellerOrders.announce(id, decided));
        } catch (error) {
            Logger.error(`Order ${id} could not be looked at: ${(error as Error).message}`, LOGGER_CONTEXT);
            return false;
        }
    }

    /** The state for which the shop's hook says yes; false where it says no; `undefined` where it has to be asked again. */
    private async decided(id: ID): Promise<OrderState | false | undefined> {
        const { readyWhen, timeoutMs } = this.options;
        if (readyWhen === readyByDefault) {
            return undefined;
        }
        try {
            const order = (await this.orders.find(id))?.order;
            const deadline = AbortSignal.timeout(timeoutMs);
            const ready = order && (await before(deadline, 'readyWhen', () => readyWhen({ toState: order.state, order })));
            return ready ? order.state : false;
        } catch {
            return undefined;
        }
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
