/** How the test's shop splits an order among its sellers: each variant belongs to the channel of its seller. */
import {
    Channel,
    ChannelService,
    EntityHydrator,
    idsAreEqual,
    Injector,
    Order,
    OrderLine,
    OrderSellerStrategy,
    OrderService,
    RequestContext,
    SplitOrderContents,
} from '@vendure/core';

/** Its orders begin paid, and so make no transition of their own. The other seller's are paid after the split. */
export const SELLER_WHOSE_ORDERS_BEGIN_PAID = 'seller-b';
export const PAYMENT_METHOD = 'test-payment';

export class TwoSellerStrategy implements OrderSellerStrategy {
    private channels: ChannelService;
    private hydrator: EntityHydrator;
    private orders: OrderService;

    init(injector: Injector): void {
        this.channels = injector.get(ChannelService);
        this.hydrator = injector.get(EntityHydrator);
        this.orders = injector.get(OrderService);
    }

    async setOrderLineSellerChannel(ctx: RequestContext, orderLine: OrderLine): Promise<Channel | undefined> {
        await this.hydrator.hydrate(ctx, orderLine.productVariant, { relations: ['channels'] });
        const defaultChannel = await this.channels.getDefaultChannel();
        return orderLine.productVariant.channels.find(channel => !idsAreEqual(channel.id, defaultChannel.id));
    }

    async splitOrder(ctx: RequestContext, order: Order): Promise<SplitOrderContents[]> {
        const parts = new Map<string, SplitOrderContents>();
        for (const line of order.lines) {
            const channelId = line.sellerChannelId;
            if (channelId) {
                const part = parts.get(String(channelId)) ?? (await this.emptyPart(ctx, channelId));
                part.lines.push(line);
                parts.set(String(channelId), part);
            }
        }
        return [...parts.values()];
    }

    async afterSellerOrdersCreated(ctx: RequestContext, _aggregate: Order, sellerOrders: Order[]): Promise<void> {
        for (const order of sellerOrders.filter(one => one.state === 'ArrangingPayment')) {
            await this.orders.addPaymentToOrder(ctx, order.id, { method: PAYMENT_METHOD, metadata: {} });
        }
    }

    private async emptyPart(ctx: RequestContext, channelId: Channel['id']): Promise<SplitOrderContents> {
        const channel = await this.channels.findOne(ctx, channelId);
        const beginsPaid = channel?.code === SELLER_WHOSE_ORDERS_BEGIN_PAID;
        return { channelId, state: beginsPaid ? 'PaymentSettled' : 'ArrangingPayment', lines: [], shippingLines: [] };
    }
}
