import { Args, Mutation, Query, Resolver } from '@nestjs/graphql';
import { Allow, Ctx, ID, Permission, RequestContext, Transaction, TransactionalConnection } from '@vendure/core';
import { gql } from 'graphql-tag';

import { OutboxEntry, OutboxState } from '../entities/outbox-entry.entity';
import { OutboxService } from '../outbox/outbox.service';
import { Reconciliation, ReconciliationReport } from '../outbox/reconciliation';

const MAX_TAKE = 100;

/** What the plugin adds to the Admin API: the outbox, for whoever looks after it. */
export const adminApiSchema = gql`
    "One post to driver-tracker. state: pending, sent, skipped or failed; kind: ready or cancelled."
    type DriverTrackerPost {
        id: ID!
        createdAt: DateTime!
        orderId: ID!
        kind: String!
        state: String!
        attempts: Int!
        dueAt: DateTime!
        lastStatus: Int
        lastError: String
        deliveryId: String
    }

    type DriverTrackerReconciliation {
        "Placed orders that had no entry in the outbox."
        looked: Int!
        "Those of them that are delivered, and were announced now."
        announced: Int!
        "Orders that were sent long ago, of which no event came; they are sent again."
        resent: Int!
    }

    extend type Query {
        "Newest first, at most 100."
        driverTrackerPosts(state: String, orderId: ID, take: Int, skip: Int): [DriverTrackerPost!]!
    }

    extend type Mutation {
        "Tries a failed post again, at once. False when there is no such post, or it has not failed."
        retryDriverTrackerPost(id: ID!): Boolean!
        "Tries every failed post again, at once. Gives how many."
        retryDriverTrackerPosts: Int!
        "Announces orders that should have a delivery and have none. It runs by itself, too."
        reconcileDriverTracker: DriverTrackerReconciliation!
    }
`;

interface PostsArgs {
    state?: OutboxState;
    orderId?: ID;
    take?: number;
    skip?: number;
}

@Resolver()
export class AdminApiResolver {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly outbox: OutboxService,
        private readonly reconciliation: Reconciliation,
    ) {}

    @Query()
    @Allow(Permission.SuperAdmin)
    async driverTrackerPosts(@Ctx() ctx: RequestContext, @Args() args: PostsArgs): Promise<object[]> {
        const entries = await this.connection.getRepository(ctx, OutboxEntry).find({
            where: { state: args.state ?? undefined, orderId: args.orderId ?? undefined },
            order: { id: 'DESC' },
            take: Math.min(Math.max(args.take ?? MAX_TAKE, 1), MAX_TAKE),
            skip: Math.max(args.skip ?? 0, 0),
        });
        return entries.map(entry => ({ ...entry, createdAt: new Date(entry.addedAt), dueAt: new Date(entry.dueAt) }));
    }

    @Mutation()
    @Transaction()
    @Allow(Permission.SuperAdmin)
    retryDriverTrackerPost(@Ctx() ctx: RequestContext, @Args() { id }: { id: ID }): Promise<boolean> {
        return this.outbox.retry(ctx, id);
    }

    @Mutation()
    @Transaction()
    @Allow(Permission.SuperAdmin)
    retryDriverTrackerPosts(@Ctx() ctx: RequestContext): Promise<number> {
        return this.outbox.retryAll(ctx);
    }

    @Mutation()
    @Allow(Permission.SuperAdmin)
    reconcileDriverTracker(): Promise<ReconciliationReport> {
        return this.reconciliation.run();
    }
}
