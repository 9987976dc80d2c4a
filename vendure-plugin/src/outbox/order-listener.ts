import { Inject, Injectable, OnApplicationBootstrap } from '@nestjs/common';
import { OrderType } from '@vendure/common/lib/generated-types';
import { EventBus, Logger, OrderStateTransitionEvent } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import type { ReadyTransition, ResolvedOptions } from '../options';
import { OutboxService } from './outbox.service';

/**
 * Writes the outbox inside the order's own transaction: a blocking handler, with the event's context. If it cannot be
 * written the transition fails too.
 *
 * Nothing but the order's id is kept. A marketplace order makes its transition before it is split, so that its type is
 * only known after the commit: whoever posts looks at it then.
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
        if (order.type !== OrderType.Aggregate && (await this.isReady({ fromState, toState, order }))) {
            await this.outbox.add(ctx, order.id, 'ready');
        }
    }

    /** A hook that throws must not undo a payment: reconciliation asks it again. */
    private async isReady(transition: ReadyTransition): Promise<boolean> {
        try {
            return await this.options.readyWhen(transition);
        } catch (error) {
            Logger.error(`readyWhen threw for order ${transition.order.code}: ${(error as Error).message}`, LOGGER_CONTEXT);
            return false;
        }
    }
}
