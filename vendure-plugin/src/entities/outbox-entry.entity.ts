import { DeepPartial, EntityId, ID, VendureEntity } from '@vendure/core';
import { Column, ColumnOptions, Entity, Index, Unique } from 'typeorm';

/** What is told to driver-tracker: the order is ready to be delivered, or it was called off. */
export type OutboxKind = 'ready' | 'cancelled';

/**
 * - `pending`: to be posted when it is due.
 * - `sent`: driver-tracker has it.
 * - `skipped`: nothing to post, `lastError` says why (an aggregate order, one that was cancelled first).
 * - `failed`: parked for an operator, `lastError` says why.
 */
export type OutboxState = 'pending' | 'sent' | 'skipped' | 'failed';

/** A transition that `readyWhen` is to be asked about. */
export interface AskedTransition {
    fromState?: string;
    toState: string;
}

/**
 * A moment by this process's clock, in ms since 1970. Not a timestamp: those of Vendure's databases have no zone, and
 * server and worker may be set to different ones.
 */
const MOMENT: ColumnOptions = { type: 'bigint', transformer: { to: (value: unknown) => value, from: Number } };

/**
 * One post to driver-tracker, written in the transaction of the order's own transition, so that neither is ever there
 * without the other. It holds no body: that is made of the order when it is posted.
 */
@Entity('driver_tracker_outbox')
@Unique('driver_tracker_outbox_order_kind', ['orderId', 'kind'])
@Index('driver_tracker_outbox_due', ['state', 'dueAt'])
export class OutboxEntry extends VendureEntity {
    constructor(input?: DeepPartial<OutboxEntry>) {
        super(input);
    }

    @EntityId()
    orderId: ID;

    @Column({ type: 'varchar', length: 16 })
    kind: OutboxKind;

    /** `readyWhen` has to say yes to one of these before it is posted. `null`: it is to be posted. */
    @Column({ type: 'simple-json', nullable: true })
    asked: AskedTransition[] | null;

    @Column({ type: 'varchar', length: 16, default: 'pending' })
    state: OutboxState;

    /** When it may be taken next. While it is being posted this is the end of the lease. */
    @Column(MOMENT)
    dueAt: number;

    /** Who holds it; only they may write down what came of the post. */
    @Column({ type: 'varchar', length: 36, nullable: true })
    leaseToken: string | null;

    @Column({ type: 'int', default: 0 })
    attempts: number;

    /** Since when it is tried; an operator's retry begins anew. */
    @Column(MOMENT)
    firstDueAt: number;

    /** When it was written. */
    @Column(MOMENT)
    addedAt: number;

    /** The last answer's status, if there was an answer. */
    @Column({ type: 'int', nullable: true })
    lastStatus: number | null;

    /** What went wrong last, in words, with the fields at fault. Holds no secret. */
    @Column({ type: 'text', nullable: true })
    lastError: string | null;

    /** driver-tracker's id of the delivery, once it has told. */
    @Column({ type: 'varchar', length: 64, nullable: true })
    deliveryId: string | null;
}
