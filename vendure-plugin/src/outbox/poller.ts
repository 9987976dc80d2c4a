import { Inject, Injectable, OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { Logger, ProcessContext } from '@vendure/core';

import { DRIVER_TRACKER_OPTIONS, LOGGER_CONTEXT } from '../constants';
import type { OutboxEntry } from '../entities/outbox-entry.entity';
import type { ResolvedOptions } from '../options';
import { Courier } from './courier';
import { Loop } from './loop';
import { OutboxService } from './outbox.service';
import { Reconciliation } from './reconciliation';

/** What is worked off at once, in one process: posts, and questions to `readyWhen`, which take no place of a post. */
class Lane {
    readonly underWay = new Set<Promise<void>>();

    constructor(
        readonly questions: boolean,
        readonly concurrency: number,
    ) {}
}

const POSTS = 8;
const QUESTIONS = 4;

/**
 * Looks at the outbox again and again, and works off what is due; beside it, reconciles now and then. Several processes may
 * do so at once. A process that is killed loses nothing: what it held is due again when its lease ends, and driver-tracker
 * bears a repeat.
 */
@Injectable()
export class OutboxPoller implements OnApplicationBootstrap, OnApplicationShutdown {
    private readonly lanes = [new Lane(false, POSTS), new Lane(true, QUESTIONS)];
    private readonly loops = [...this.lanes.map(lane => new Loop(() => this.fill(lane))), new Loop(() => this.reconcile())];

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
            this.loops.forEach(loop => loop.start());
        }
    }

    /** Takes nothing new, and waits for what is on its way. */
    async onApplicationShutdown(): Promise<void> {
        await Promise.all(this.loops.map(loop => loop.stop()));
        await Promise.all(this.lanes.flatMap(lane => [...lane.underWay]));
    }

    /** Fills the places that are free. A slow post keeps one of them, and no other order waits for it. */
    private async fill({ questions, concurrency, underWay }: Lane): Promise<number> {
        if (underWay.size >= concurrency) {
            await Promise.race(underWay);
        }
        const free = concurrency - underWay.size;
        try {
            const entries = await this.outbox.claim(free, questions);
            for (const entry of entries) {
                const work: Promise<void> = this.deliver(entry).finally(() => underWay.delete(work));
                underWay.add(work);
            }
            return entries.length === free ? 0 : this.options.pollIntervalMs;
        } catch (error) {
            Logger.error(`The outbox could not be read: ${(error as Error).message}`, LOGGER_CONTEXT);
            return this.options.pollIntervalMs;
        }
    }

    /** What fails here is due again when its lease ends. */
    private async deliver(entry: OutboxEntry): Promise<void> {
        try {
            await this.courier.deliver(entry);
        } catch (error) {
            Logger.error(`Outbox entry ${entry.id} could not be worked off: ${(error as Error).message}`, LOGGER_CONTEXT);
        }
    }

    private async reconcile(): Promise<number> {
        try {
            await this.reconciliation.run();
        } catch (error) {
            Logger.error(`Orders could not be reconciled: ${(error as Error).message}`, LOGGER_CONTEXT);
        }
        return this.options.reconcileEveryMs;
    }
}
