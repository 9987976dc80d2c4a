/** Where an order is fetched and brought unless the shop's own hooks say: custom fields of the seller and of the address. */
import type { AddressPositionFields, SellerPickupFields } from '../custom-fields';
import type { DeliverableOrder, Stop } from '../options';

/** The pickup of the seller's custom fields; `undefined` without coordinates. */
export function resolvePickupFromSeller({ seller }: DeliverableOrder): Stop | undefined {
    const fields = (seller?.customFields ?? {}) as SellerPickupFields;
    if (!isNumber(fields.lat) || !isNumber(fields.lon)) {
        return undefined;
    }
    return {
        lat: fields.lat,
        lon: fields.lon,
        address: fields.pickupAddress ?? undefined,
        contactName: fields.pickupContactName ?? seller?.name,
        phone: fields.pickupPhone ?? undefined,
        notes: fields.pickupNotes ?? undefined,
    };
}

/** The shipping address with the coordinates of its custom fields; `undefined` without them. */
export function resolveDropoffFromAddress({ order }: DeliverableOrder): Stop | undefined {
    const address = order.shippingAddress ?? {};
    const fields = (address.customFields ?? {}) as AddressPositionFields;
    if (!isNumber(fields.lat) || !isNumber(fields.lon)) {
        return undefined;
    }
    const street = [address.company, address.streetLine1, address.streetLine2];
    const town = [address.postalCode, address.city].filter(Boolean).join(' ');
    const customer = [order.customer?.firstName, order.customer?.lastName].filter(Boolean).join(' ');
    return {
        lat: fields.lat,
        lon: fields.lon,
        address: [...street, town, address.province, address.country].filter(Boolean).join(', ') || undefined,
        contactName: address.fullName || customer || undefined,
        phone: address.phoneNumber || order.customer?.phoneNumber || undefined,
    };
}

function isNumber(value: unknown): value is number {
    return typeof value === 'number' && Number.isFinite(value);
}
