import { DeepPartial, EntityId, ID, VendureEntity } from '@vendure/core';
import { Column, Entity, Index } from 'typeorm';

/**
 * What driver-tracker has told of one delivery. The row is locked while an event is applied, and written in the same
 * transaction as the event's effect: an event is applied whole or not at all, once, and never after a later one.
 */
@Entity('driver_tracker_delivery')
export class TrackedDelivery extends VendureEntity {
    constructor(input?: DeepPartial<TrackedDelivery>) {
        super(input);
    }

    /** driver-tracker's id. */
    @Index('driver_tracker_delivery_delivery_id', { unique: true })
    @Column({ type: 'varchar', length: 64 })
    deliveryId: string;

    @Index('driver_tracker_delivery_order_id')
    @EntityId()
    orderId: ID;

    /** The `sequence` of the last event that was applied; 0 before the first. */
    @Column({ type: 'int', default: 0 })
    lastSequence: number;

    @Column({ type: 'varchar', length: 128, nullable: true })
    lastEventId: string | null;

    /** The `status` of that event. */
    @Column({ type: 'varchar', length: 32, nullable: true })
    status: string | null;

    /** The fulfillment that this delivery drives, once there is one. */
    @EntityId({ nullable: true })
    fulfillmentId: ID | null;
}
