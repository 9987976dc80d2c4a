import { Inject, Injectable, OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { Logger, ProcessContext } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import type { ResolvedOptions } from '../options';
import { Courier } from './courier';
import { OutboxService } from './outbox.service';
import { Reconciliation } from './reconciliation';

/** How many posts are on their way at once, in one process. */
const CONCURRENCY = 8;

/**
 * Looks at the outbox again and again, and works off what is due. Several processes may do so at once. A process that is
 * killed loses nothing: what it held is due again when its lease ends, and driver-tracker bears a repeat.
 */
@Injectable()
export class OutboxPoller implements OnApplicationBootstrap, OnApplicationShutdown {
    private stopped = false;
    private timer: NodeJS.Timeout | undefined;
    private round: Promise<void> = Promise.resolve();
    private reconciledAt = 0;

    constructor(
        private readonly processContext: ProcessContext,
        private readonly outbox: OutboxService,
        private readonly courier: Courier,
        private readonly reconciliation: Reconciliation,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    onApplicationBootstrap(): void {
        const { runIn } = this.options;
        const runsHere = runIn === 'both' || (runIn === 'server') === this.processContext.isServer;
        if (runsHere) {
            this.schedule(0);
        }
    }

    /** Takes nothing new, and waits for what is on its way. */
    async onApplicationShutdown(): Promise<void> {
        this.stopped = true;
        clearTimeout(this.timer);
        await this.round;
    }

    private schedule(delayMs: number): void {
        if (!this.stopped) {
            this.timer = setTimeout(() => {
                this.round = this.work().then(more => this.schedule(more ? 0 : this.options.pollIntervalMs));
            }, delayMs);
        }
    }

    /** One round. True when there may be more that is due. Never throws: the next round tries again. */
    private async work(): Promise<boolean> {
        try {
            await this.reconcileWhenDue();
            const entries = await this.outbox.claim(CONCURRENCY);
            const results = await Promise.allSettled(entries.map(entry => this.courier.deliver(entry)));
            for (const result of results) {
                if (result.status === 'rejected') {
                    Logger.error(`An outbox entry could not be worked off: ${result.reason}`, LOGGER_CONTEXT);
                }
            }
            return entries.length === CONCURRENCY;
        } catch (error) {
            Logger.error(`The outbox could not be read: ${(error as Error).message}`, LOGGER_CONTEXT);
            return false;
        }
    }

    private async reconcileWhenDue(): Promise<void> {
        const now = Date.now();
        if (now - this.reconciledAt >= this.options.reconcileEveryMs) {
            this.reconciledAt = now;
            await this.reconciliation.run();
        }
    }
}
