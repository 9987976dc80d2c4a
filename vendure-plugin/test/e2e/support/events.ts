/** Events as driver-tracker would post them, made by hand. */
import { signedHeaders, SigningSecret } from '../../../src/signature';
import { MADE_BY_HAND } from './wire';
import type { World } from './world';

const SOME_EVENT = {
    event: 'DELIVERY_ASSIGNED_V1',
    version: 1,
    eventId: MADE_BY_HAND,
    shop: 'vendure',
    channelId: '1',
    status: 'ASSIGNED',
    attempt: 1,
};

/** Posts `event` (or `raw`, whatever it is), signed. */
export async function sendEvent(
    world: World,
    event: object,
    secrets: string[],
    raw: string = JSON.stringify({ ...SOME_EVENT, ...event }),
): Promise<{ status: number; body: Record<string, unknown> }> {
    const body = Buffer.from(raw);
    const signed = signedHeaders(secrets.map(secret => SigningSecret.parse(secret)), SOME_EVENT.eventId, body);
    const response = await fetch(`${world.shop.url}/driver-tracker/events`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...signed },
        body,
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}
