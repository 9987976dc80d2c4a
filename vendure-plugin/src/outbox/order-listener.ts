import { Inject, Injectable, OnApplicationBootstrap } from '@nestjs/common';
import { OrderType } from '@vendure/common/lib/generated-types';
import { EventBus, OrderStateTransitionEvent } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS } from '../constants';
import { readyByDefault, ResolvedOptions } from '../options';
import { OutboxService } from './outbox.service';

/** In these an order is not placed yet, and nobody's to deliver. */
const CART = ['Created', 'Draft', 'AddingItems', 'ArrangingPayment'];

/**
 * Writes the outbox inside the order's own transaction: a blocking handler, with the event's context. If it cannot be
 * written the transition fails too.
 *
 * Nothing but the order's id is kept. A marketplace order makes its transition before it is split, so that its type is
 * only known after the commit: whoever posts looks at it then. A `readyWhen` of the shop's is asked after the commit too: it
 * may be slow, or fail, and a payment must not wait for it or be undone.
 */
@Injectable()
export class OrderListener implements OnApplicationBootstrap {
    constructor(
        private readonly eventBus: EventBus,
        private readonly outbox: OutboxService,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    onApplicationBootstrap(): void {
        this.eventBus.registerBlockingEventHandler({
            event: OrderStateTransitionEvent,
            id: 'driver-tracker-outbox',
            handler: event => this.record(event),
        });
    }

    private async record({ ctx, order, fromState, toState }: OrderStateTransitionEvent): Promise<void> {
        if (toState === 'Cancelled') {
            // An order that was never announced needs no calling off.
            if (order.type !== OrderType.Aggregate && (await this.outbox.has(ctx, order.id, 'ready'))) {
                await this.outbox.add(ctx, order.id, 'cancelled');
            }
            return;
        }
        if (order.type === OrderType.Aggregate) {
            return;
        }
        if (this.options.readyWhen !== readyByDefault) {
            if (!CART.includes(toState)) {
                await this.outbox.ask(ctx, order.id, { fromState, toState });
            }
        } else if (await readyByDefault({ fromState, toState, order })) {
            await this.outbox.add(ctx, order.id, 'ready');
        }
    }
}
