import { Injectable } from '@nestjs/common';
import {
    Channel,
    ChannelService,
    ConfigService,
    ID,
    idsAreEqual,
    Order,
    RequestContext,
    RequestContextService,
    Seller,
    TransactionalConnection,
    User,
} from '@vendure/core';

/** What every order is read with, whoever asks: hooks of the shop rely on it (`ReadyTransition`). */
const RELATIONS = {
    channels: { seller: true },
    customer: true,
    lines: { productVariant: { translations: true } },
    shippingLines: { shippingMethod: true },
    surcharges: true,
};

/** An order with the channel that it belongs to, and a context to work on it. */
export interface OrderInChannel {
    /** A context of the superadmin's on that channel; without a transaction. */
    ctx: RequestContext;
    /** With `RELATIONS`. */
    order: Order;
    channel: Channel;
    seller?: Seller;
}

/** Reads orders outside of any request: for the poller, and for events of driver-tracker. */
@Injectable()
export class OrderReader {
    constructor(
        private readonly connection: TransactionalConnection,
        private readonly channels: ChannelService,
        private readonly contexts: RequestContextService,
        private readonly config: ConfigService,
    ) {}

    /** `undefined` when there is no such order. */
    async find(id: ID): Promise<OrderInChannel | undefined> {
        const order = await this.connection.rawConnection.getRepository(Order).findOne({
            where: { id },
            relations: RELATIONS,
        });
        if (!order) {
            return undefined;
        }
        const channel = await this.ownChannel(order);
        const ctx = await this.contexts.create({ apiType: 'admin', channelOrToken: channel.token, user: await this.superadmin() });
        for (const { productVariant } of order.lines) {
            nameVariant(productVariant, ctx);
        }
        return { ctx, order, channel, seller: channel.seller };
    }

    /** The id of an order as this database holds it, read from a text; `undefined` when it can be none. */
    parseId(text: string): ID | undefined {
        const strategy = this.config.entityOptions.entityIdStrategy ?? this.config.entityIdStrategy;
        if (strategy?.primaryKeyType === 'uuid') {
            return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? text : undefined;
        }
        const id = /^[1-9]\d{0,9}$/.test(text) ? Number(text) : NaN;
        return id <= 2_147_483_647 ? id : undefined;
    }

    /** Every order is also in the default channel: its own is the other one, where there is one. */
    private async ownChannel(order: Order): Promise<Channel> {
        const defaultChannel = await this.channels.getDefaultChannel();
        const own = order.channels.find(channel => !idsAreEqual(channel.id, defaultChannel.id));
        const found = own ?? order.channels[0];
        if (!found) {
            throw new Error(`the order ${order.code} is in no channel`);
        }
        return found;
    }

    /** Acts for the plugin, so that hooks which look at permissions let it work. */
    private async superadmin(): Promise<User | undefined> {
        const { identifier } = this.config.authOptions.superadminCredentials;
        const user = await this.connection.rawConnection
            .getRepository(User)
            .findOne({ where: { identifier }, relations: { roles: { channels: true } } });
        return user ?? undefined;
    }
}

/** Gives a variant its name in the channel's language, or in whatever language it has one. */
function nameVariant(variant: Order['lines'][number]['productVariant'], ctx: RequestContext): void {
    const translations = variant?.translations ?? [];
    const translation = translations.find(one => one.languageCode === ctx.languageCode) ?? translations[0];
    if (variant && translation) {
        Object.assign(variant, { name: translation.name });
    }
}
