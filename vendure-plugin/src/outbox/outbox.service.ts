import { randomUUID } from 'node:crypto';

import { Inject, Injectable } from '@nestjs/common';
import { ID, RequestContext, TransactionalConnection } from '@vendure/core';
import { In, IsNull, Not } from 'typeorm';

import { DRIVER_TRACKER_OPTIONS } from '../constants';
import { AskedTransition, OutboxEntry, OutboxKind, OutboxState } from '../entities/outbox-entry.entity';
import { TrackedDelivery } from '../entities/tracked-delivery.entity';
import type { ResolvedOptions } from '../options';
import { retryDelayMs } from './backoff';
import type { Verdict } from './verdict';

/** Databases whose `FOR UPDATE SKIP LOCKED` lets several processes claim side by side. Others have one writer at a time. */
const SKIP_LOCKED = ['postgres', 'aurora-postgres', 'mysql', 'mariadb', 'aurora-mysql'];

/** At most so many are sent again at once; the next run finds the others. */
const MAX_RESENT = 1_000;

/** What came of an entry that was claimed. */
export type Finish =
    | Verdict
    | { outcome: 'parked'; error: string }
    /** `readyWhen` said yes: it is posted next. */
    | { outcome: 'ready' }
    /** `readyWhen` said no: there is nothing to remember. */
    | { outcome: 'unready' };

/** What an entry became. */
export interface Finished {
    state: OutboxState;
    /** In words, where something went wrong. */
    error?: string;
}

/** What is written to the outbox, and what its workers read. */
@Injectable()
export class OutboxService {
    constructor(
        private readonly connection: TransactionalConnection,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    /** Adds an entry in the transaction of `ctx`, unless the order has one of this kind. True when it was added. */
    async add(ctx: RequestContext, orderId: ID, kind: OutboxKind, asked: AskedTransition[] | null = null): Promise<boolean> {
        if (await this.has(ctx, orderId, kind)) {
            return false;
        }
        const now = Date.now();
        const entry = { orderId, kind, asked, state: 'pending' as const, dueAt: now, firstDueAt: now, addedAt: now };
        // Two transactions at once: the second waits for the first, and then adds nothing.
        await this.connection
            .getRepository(ctx, OutboxEntry)
            .createQueryBuilder()
            .insert()
            .values(entry)
            .orIgnore()
            .updateEntity(false)
            .execute();
        return true;
    }

    /**
     * Has `readyWhen` asked about a transition, in the transaction of `ctx`; unless it has said yes for this order before.
     * Transitions that were not answered yet are asked about too. True when it will be asked.
     */
    async ask(ctx: RequestContext, orderId: ID, transition: AskedTransition): Promise<boolean> {
        const repository = this.connection.getRepository(ctx, OutboxEntry);
        // Not locked where nothing is left to ask: whoever finishes a post holds the entry, and then waits for the order.
        if (await repository.existsBy({ orderId, kind: 'ready', asked: IsNull() })) {
            return false;
        }
        const present = await repository
            .createQueryBuilder('entry')
            .where("entry.orderId = :orderId AND entry.kind = 'ready'", { orderId })
            .setLock('pessimistic_write')
            .getOne();
        if (!present) {
            return this.add(ctx, orderId, 'ready', [transition]);
        }
        if (present.asked !== null) {
            await repository.update({ id: present.id }, { ...dueAnew(), asked: [...present.asked, transition] });
        }
        return present.asked !== null;
    }

    /** Has a cancelled order called off, once more if it was before, in the transaction of `ctx`. */
    async callOff(ctx: RequestContext, orderId: ID): Promise<void> {
        if (!(await this.add(ctx, orderId, 'cancelled'))) {
            const over = { orderId, kind: 'cancelled' as const, state: Not('pending' as const) };
            await this.connection.getRepository(ctx, OutboxEntry).update(over, dueAnew());
        }
    }

    /** Whether the order has an entry of this kind, as the transaction of `ctx` sees it. */
    has(ctx: RequestContext, orderId: ID, kind: OutboxKind): Promise<boolean> {
        return this.connection.getRepository(ctx, OutboxEntry).existsBy({ orderId, kind });
    }

    /**
     * Takes up to `limit` due entries for this process until the lease ends: those that `readyWhen` is to be asked about
     * (`questions`), or those that are to be posted. A cancelling entry is not due while the
     * ready entry of its order is pending, so that driver-tracker hears of them in this order.
     */
    async claim(limit: number, questions: boolean): Promise<OutboxEntry[]> {
        const leaseToken = randomUUID();
        return this.connection.rawConnection.transaction(async manager => {
            const repository = manager.getRepository(OutboxEntry);
            const now = Date.now();
            const query = repository
                .createQueryBuilder('entry')
                .where('entry.state = :pending', { pending: 'pending' })
                .andWhere('entry.dueAt <= :now', { now })
                .andWhere(`entry.asked IS ${questions ? 'NOT NULL' : 'NULL'}`)
                .orderBy('entry.dueAt', 'ASC')
                .addOrderBy('entry.id', 'ASC')
                .take(limit);
            const readyFirst = query
                .subQuery()
                .select('1')
                .from(OutboxEntry, 'earlier')
                .where('earlier.orderId = entry.orderId')
                .andWhere("earlier.kind = 'ready'")
                .andWhere('earlier.state = :pending')
                .getQuery();
            query.andWhere(`(entry.kind = 'ready' OR NOT EXISTS ${readyFirst})`);
            if (SKIP_LOCKED.includes(manager.connection.options.type)) {
                query.setLock('pessimistic_write').setOnLocked('skip_locked');
            }
            const entries = await query.getMany();
            if (entries.length > 0) {
                const dueAt = now + this.options.leaseMs;
                const ids = entries.map(entry => entry.id);
                await repository.update({ id: In(ids) }, { dueAt, leaseToken, attempts: () => 'attempts + 1' });
            }
            return entries.map(entry => Object.assign(entry, { leaseToken, attempts: entry.attempts + 1 }));
        });
    }

    /**
     * Writes down what came of a claimed entry, in the transaction of `ctx`; `undefined` when the lease was lost, and another
     * process decides.
     */
    async finish(ctx: RequestContext, entry: OutboxEntry, finish: Finish): Promise<Finished | undefined> {
        const repository = this.connection.getRepository(ctx, OutboxEntry);
        const held = { id: entry.id, leaseToken: entry.leaseToken as string, state: 'pending' as const };
        if (finish.outcome === 'unready') {
            const { affected } = await repository.delete(held);
            return affected === 0 ? undefined : { state: 'skipped' };
        }
        const changes = this.changes(entry, finish);
        const result = await repository.update(held, changes);
        if (result.affected === 0) {
            return undefined;
        }
        return { state: changes.state ?? 'pending', error: changes.lastError ?? undefined };
    }

    /** Puts a parked entry back, due at once. False when it is not parked. */
    async retry(ctx: RequestContext, id: ID): Promise<boolean> {
        const result = await this.connection.getRepository(ctx, OutboxEntry).update({ id, state: 'failed' }, dueAnew());
        return result.affected === 1;
    }

    /** Puts every parked entry back, due at once. Gives how many. */
    async retryAll(ctx: RequestContext): Promise<number> {
        const result = await this.connection.getRepository(ctx, OutboxEntry).update({ state: 'failed' }, dueAnew());
        return result.affected ?? 0;
    }

    /**
     * Puts ready entries back that were sent before `quietSince`, of which no event ever came, of orders that were not called
     * off. Entries of before `since` are let be. Both in ms since 1970. Gives how many.
     */
    async resendUnheard(since: number, quietSince: number): Promise<number> {
        const repository = this.connection.rawConnection.getRepository(OutboxEntry);
        const query = repository
            .createQueryBuilder('entry')
            .where("entry.state = 'sent'")
            .andWhere("entry.kind = 'ready'")
            .andWhere('entry.dueAt BETWEEN :since AND :quietSince', { since, quietSince })
            .andWhere('entry.addedAt >= :since');
        const heard = query.subQuery().select('1').from(TrackedDelivery, 'delivery').where('delivery.orderId = entry.orderId').getQuery();
        const calledOff = query
            .subQuery()
            .select('1')
            .from(OutboxEntry, 'other')
            .where('other.orderId = entry.orderId')
            .andWhere("other.kind = 'cancelled'")
            .getQuery();
        query.andWhere(`NOT EXISTS ${heard}`).andWhere(`NOT EXISTS ${calledOff}`);
        const entries = await query.orderBy('entry.dueAt', 'ASC').take(MAX_RESENT).getMany();
        if (entries.length === 0) {
            return 0;
        }
        const ids = entries.map(entry => entry.id);
        const result = await repository.update({ id: In(ids), state: 'sent' }, dueAnew());
        return result.affected ?? 0;
    }

    private changes(entry: OutboxEntry, finish: Exclude<Finish, { outcome: 'unready' }>): Partial<OutboxEntry> {
        switch (finish.outcome) {
            case 'sent':
                return {
                    state: 'sent',
                    leaseToken: null,
                    lastStatus: finish.status,
                    lastError: finish.note ?? null,
                    deliveryId: finish.deliveryId ?? null,
                };
            case 'skipped':
                return { state: 'skipped', leaseToken: null, lastStatus: finish.status ?? null, lastError: finish.note };
            case 'ready':
                return { ...dueAnew(), asked: null, lastStatus: null, lastError: null };
            case 'parked':
                return { state: 'failed', leaseToken: null, lastStatus: null, lastError: finish.error };
            case 'failed':
                return { state: 'failed', leaseToken: null, lastStatus: finish.status, lastError: finish.error };
            case 'retry':
                return this.retryLater(entry, finish);
        }
    }

    private retryLater(entry: OutboxEntry, finish: Extract<Verdict, { outcome: 'retry' }>): Partial<OutboxEntry> {
        const now = Date.now();
        const tried = { leaseToken: null, lastStatus: finish.status ?? null, lastError: finish.error };
        if (now - entry.firstDueAt > this.options.giveUpAfterMs) {
            return { ...tried, state: 'failed', lastError: `given up after ${entry.attempts} tries; the last: ${finish.error}` };
        }
        const backoff = { baseMs: this.options.retryBaseMs, maxMs: this.options.retryMaxMs };
        return { ...tried, dueAt: now + retryDelayMs(backoff, entry.attempts, finish.retryAfterMs) };
    }
}

function dueAnew(): Partial<OutboxEntry> {
    const now = Date.now();
    return { state: 'pending', dueAt: now, firstDueAt: now, attempts: 0, leaseToken: null };
}
