/**
 * The bodies that driver-tracker takes, made of an order. Pure.
 *
 * Texts longer than driver-tracker takes are cut, and items left out from the end where the body would be too large: they
 * are for people, and no order is lost for a long note.
 */
import type { ID } from '@vendure/core';

import type { Stop } from '../options';

const MAX_LINE = 1_000;
const MAX_NAME = 256;
const MAX_CODE = 128;
const MAX_PHONE = 64;
const MAX_ITEMS = 500;
/** What driver-tracker takes of a body. */
const MAX_BODY_BYTES = 262_144;

/** `POST /webhooks/{shop}/seller-order-ready`. */
export interface ReadyBody {
    sellerOrderId: string;
    channelId: string;
    pickup: Stop;
    drop: Stop;
    orderCode?: string;
    seller?: { id: string; name?: string };
    items?: Array<{ sku?: string; name?: string; quantity: number }>;
    readyAt?: string;
    metadata?: Record<string, unknown>;
}

/** `POST /webhooks/{shop}/seller-order-cancelled`. */
export interface CancelledBody {
    sellerOrderId: string;
    channelId: string;
    reason?: string;
}

/** What a body is made of: the fields of Vendure's entities that are used, and no more. */
export interface OrderFacts {
    order: {
        id: ID;
        code: string;
        orderPlacedAt?: Date;
        lines: Array<{ quantity: number; productVariant?: { sku?: string; name?: string } }>;
    };
    channel: { id: ID };
    seller?: { id: ID; name: string };
}

/** The order cannot be posted as it is; an operator must see to it. The message is for them. */
export class UndeliverableOrderError extends Error {
    constructor(message: string) {
        super(message);
        this.name = 'UndeliverableOrderError';
    }
}

/** The body of a ready order. Throws `UndeliverableOrderError` when a place is not known. */
export function readyBody(
    { order, channel, seller }: OrderFacts,
    pickup: Stop | undefined,
    drop: Stop | undefined,
    metadata: Record<string, unknown> | undefined,
): ReadyBody {
    const items = order.lines.filter(line => line.quantity > 0).slice(0, MAX_ITEMS);
    return fit({
        sellerOrderId: String(order.id),
        channelId: String(channel.id),
        pickup: stop(pickup, 'the pickup has no coordinates: fill in lat and lon of the seller, or use resolvePickup'),
        drop: stop(drop, 'the shipping address has no coordinates: fill in its lat and lon, or use resolveDropoff'),
        orderCode: cut(order.code, MAX_CODE),
        seller: seller && { id: String(seller.id), name: cut(seller.name, MAX_NAME) },
        items: items.map(line => ({
            sku: cut(line.productVariant?.sku, MAX_CODE),
            name: cut(line.productVariant?.name, MAX_NAME),
            quantity: line.quantity,
        })),
        readyAt: order.orderPlacedAt?.toISOString(),
        metadata,
    });
}

/** `body` with as many of its items, from the first, as it may have. */
function fit(body: ReadyBody): ReadyBody {
    const items = [...(body.items ?? [])];
    let excess = Buffer.byteLength(JSON.stringify(body)) - MAX_BODY_BYTES;
    while (excess > 0 && items.length > 0) {
        excess -= Buffer.byteLength(JSON.stringify(items.pop())) + 1;
    }
    return { ...body, items };
}

/** The body of an order that was called off. */
export function cancelledBody({ order, channel }: Pick<OrderFacts, 'order' | 'channel'>): CancelledBody {
    return { sellerOrderId: String(order.id), channelId: String(channel.id), reason: 'the order was cancelled in the shop' };
}

function stop(given: Stop | undefined, sentence: string): Stop {
    if (given === undefined || given === null) {
        throw new UndeliverableOrderError(sentence);
    }
    return {
        lat: given.lat,
        lon: given.lon,
        address: cut(given.address, MAX_LINE),
        contactName: cut(given.contactName, MAX_NAME),
        phone: cut(given.phone, MAX_PHONE),
        notes: cut(given.notes, MAX_LINE),
    };
}

/** At most `max` Unicode scalar values, without NUL, which PostgreSQL cannot hold. Empty texts are left out. */
function cut(text: string | null | undefined, max: number): string | undefined {
    if (!text) {
        return undefined;
    }
    return [...text.replaceAll('\0', '')].slice(0, max).join('') || undefined;
}
