/**
 * The custom fields that the plugin adds. Vendure's own dashboard shows them.
 *
 * Coordinates are written by the shop and by its customers, what is on the Order by the plugin alone. A field of the
 * same name that the shop already has is left as it is, and used.
 */
import { CustomFieldConfig, CustomFields, LanguageCode } from '@vendure/core';

/** Where a seller's goods are fetched. */
export interface SellerPickupFields {
    lat?: number | null;
    lon?: number | null;
    pickupAddress?: string | null;
    pickupContactName?: string | null;
    pickupPhone?: string | null;
    pickupNotes?: string | null;
}

/** Where an address is. */
export interface AddressPositionFields {
    lat?: number | null;
    lon?: number | null;
}

/** How the delivery of an order goes. */
export interface OrderDeliveryFields {
    /** PENDING, ASSIGNED, PICKED_UP, DELIVERED, FAILED or CANCELLED. */
    driverTrackerStatus?: string | null;
    /** Name and number of the driver; for administrators only. */
    driverTrackerDriver?: string | null;
    driverTrackerTrackingUrl?: string | null;
    /** What an operator has to see to. */
    driverTrackerProblem?: string | null;
}

const text = (value: string) => [{ languageCode: LanguageCode.en, value }];

const position: CustomFieldConfig[] = [
    { name: 'lat', type: 'float', nullable: true, min: -85.05112878, max: 85.05112878, label: text('Latitude') },
    { name: 'lon', type: 'float', nullable: true, min: -180, max: 180, label: text('Longitude') },
];

/** Not in the Shop API, where anybody may ask for the seller of a channel. */
const privately = (fields: CustomFieldConfig[]) => fields.map(field => ({ ...field, public: false }));

const ADDED: Partial<CustomFields> = {
    Seller: privately([
        ...position,
        { name: 'pickupAddress', type: 'string', nullable: true, length: 1000, label: text('Pickup address') },
        { name: 'pickupContactName', type: 'string', nullable: true, label: text('Pickup contact') },
        { name: 'pickupPhone', type: 'string', nullable: true, label: text('Pickup phone') },
        { name: 'pickupNotes', type: 'string', nullable: true, length: 1000, label: text('Pickup notes') },
    ]),
    Address: position,
    Order: [
        { name: 'driverTrackerStatus', type: 'string', nullable: true, readonly: true, label: text('Delivery') },
        {
            name: 'driverTrackerDriver',
            type: 'string',
            nullable: true,
            readonly: true,
            public: false,
            length: 400,
            label: text('Driver'),
        },
        {
            name: 'driverTrackerTrackingUrl',
            type: 'string',
            nullable: true,
            readonly: true,
            length: 2048,
            label: text('Tracking link'),
        },
        {
            name: 'driverTrackerProblem',
            type: 'text',
            nullable: true,
            readonly: true,
            public: false,
            label: text('Delivery problem'),
        },
    ],
};

/** `existing` and what the plugin needs beside it. */
export function withDriverTrackerFields<F extends CustomFields>(existing: F): F {
    const merged: CustomFields = { ...existing };
    for (const [entity, fields] of Object.entries(ADDED)) {
        const present = merged[entity] ?? [];
        const missing = (fields ?? []).filter(field => !present.some(one => one.name === field.name));
        merged[entity] = [...present, ...missing];
    }
    return merged as F;
}
