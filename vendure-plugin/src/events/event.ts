/**
 * The events of driver-tracker. Pure. Unknown fields and unknown events are borne: what an event is applied by is checked,
 * everything else is taken as it comes.
 */

/** The events that have an effect here. */
export const KNOWN_EVENTS = [
    'DELIVERY_ASSIGNED_V1',
    'DELIVERY_UNASSIGNED_V1',
    'DELIVERY_PICKED_UP_V1',
    'DELIVERY_DELIVERED_V1',
    'DELIVERY_FAILED_V1',
    'DELIVERY_CANCELLED_V1',
] as const;

export type KnownEvent = (typeof KNOWN_EVENTS)[number];

/** One event, as far as it is used. */
export interface DeliveryEvent {
    event: string;
    eventId: string;
    /** Rises with each event of one delivery, with gaps. */
    sequence: number;
    shop: string;
    sellerOrderId: string;
    deliveryId: string;
    status?: string;
    trackingUrl?: string;
    driver?: { name?: string; phone?: string };
    failure?: { code?: string; reason?: string };
    reason?: string;
}

/** Why a body is no event: `status` is the answer. Neither will ever become one, so driver-tracker need not try again. */
export class NoEventError extends Error {
    constructor(
        readonly status: 400 | 422,
        message: string,
    ) {
        super(message);
        this.name = 'NoEventError';
    }
}

/** Reads a body. Throws `NoEventError`, naming every field at fault. */
export function parseEvent(rawBody: Buffer): DeliveryEvent {
    const root = asObject(parseJson(rawBody));
    if (!root) {
        throw new NoEventError(422, 'an event is a JSON object');
    }
    const faults: string[] = [];
    const required = (field: string, maxChars: number): string => {
        const value = textOf(root[field]);
        if (value === undefined || value === '' || value.length > maxChars) {
            faults.push(`${field} must be a text of 1 to ${maxChars} characters`);
        }
        return value ?? '';
    };
    const driver = asObject(root.driver);
    const failure = asObject(root.failure);
    const event: DeliveryEvent = {
        event: required('event', 64),
        eventId: required('eventId', 128),
        shop: required('shop', 63),
        sellerOrderId: required('sellerOrderId', 128),
        deliveryId: required('deliveryId', 64),
        sequence: Number.isInteger(root.sequence) ? (root.sequence as number) : NaN,
        status: textOf(root.status)?.slice(0, 32),
        trackingUrl: webUrl(root.trackingUrl),
        driver: driver && { name: textOf(driver.name), phone: textOf(driver.phone) },
        failure: failure && { code: textOf(failure.code), reason: textOf(failure.reason) },
        reason: textOf(root.reason),
    };
    if (!(event.sequence >= 1 && event.sequence <= 2_147_483_647)) {
        faults.push('sequence must be a positive integer');
    }
    if (faults.length > 0) {
        throw new NoEventError(422, faults.join('; '));
    }
    return event;
}

/** Whether this event has an effect here; others are only counted. */
export function isKnown(event: string): event is KnownEvent {
    return (KNOWN_EVENTS as readonly string[]).includes(event);
}

function parseJson(rawBody: Buffer): unknown {
    try {
        return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(rawBody));
    } catch {
        throw new NoEventError(400, 'the body is not JSON in UTF-8');
    }
}

function asObject(value: unknown): Record<string, unknown> | undefined {
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
}

function textOf(value: unknown): string | undefined {
    return typeof value === 'string' ? value : undefined;
}

/** It becomes a link in the dashboard, so that nothing but a web address may stand there. */
function webUrl(value: unknown): string | undefined {
    const text = textOf(value);
    return text !== undefined && text.length <= 2_048 && /^https?:\/\//i.test(text) ? text : undefined;
}
