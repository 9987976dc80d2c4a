/**
 * Standard Webhooks 1.0 (https://www.standardwebhooks.com), in both directions.
 *
 * What is signed is `id.timestamp.body`, with the raw bytes of the body. Comparisons take the same time wherever two
 * signatures differ, and every secret is tried whatever the others said.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

/** How far a signed request's time may be from ours, in seconds, either way. */
export const TOLERANCE_S = 300;

const SECRET_PREFIX = 'whsec_';
const SIGNATURE_PREFIX = 'v1,';
const MIN_KEY_BYTES = 24;
const MAX_KEY_BYTES = 64;
/** Signatures beyond this many in one header are not looked at. */
const MAX_SIGNATURES = 32;

/** A key that signs and verifies. Its bytes never show in logs. */
export class SigningSecret {
    readonly #key: Buffer;

    private constructor(key: Buffer) {
        this.#key = key;
    }

    /** Reads `whsec_` and the base64 of 24 to 64 bytes. The error never holds the secret. */
    static parse(text: string): SigningSecret {
        if (!text.startsWith(SECRET_PREFIX)) {
            throw new Error('a secret starts with whsec_');
        }
        const encoded = text.slice(SECRET_PREFIX.length);
        if (!/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) {
            throw new Error('a secret is whsec_ and then base64, which this one is not');
        }
        const key = Buffer.from(encoded, 'base64');
        if (key.length < MIN_KEY_BYTES || key.length > MAX_KEY_BYTES) {
            throw new Error(`a secret is whsec_ and the base64 of 24 to 64 bytes; this one holds ${key.length} bytes`);
        }
        return new SigningSecret(key);
    }

    /** HMAC-SHA256 of `id.timestamp.body`. */
    mac(id: string, timestamp: string, body: Buffer): Buffer {
        return createHmac('sha256', this.#key).update(`${id}.${timestamp}.`).update(body).digest();
    }
}

/** The three headers of one signed post, its time fresh. One signature for each secret. */
export function signedHeaders(
    secrets: readonly SigningSecret[],
    id: string,
    body: Buffer,
    now: Date = new Date(),
): Record<string, string> {
    const timestamp = String(Math.floor(now.getTime() / 1000));
    const signatures = secrets.map(secret => SIGNATURE_PREFIX + secret.mac(id, timestamp, body).toString('base64'));
    return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures.join(' ') };
}

/** Why a request was refused; `undefined` when it is genuine. For logs: the sender is told nothing of it. */
export type SignatureRefusal = 'missing' | 'malformed' | 'stale' | 'mismatch';

/** Judges a request by its headers (names in lower case) and its raw body. */
export function refuseSignature(
    secrets: readonly SigningSecret[],
    headers: Record<string, string | string[] | undefined>,
    rawBody: Buffer,
    now: Date = new Date(),
): SignatureRefusal | undefined {
    const id = single(headers['webhook-id']);
    const timestamp = single(headers['webhook-timestamp']);
    const signature = single(headers['webhook-signature']);
    if (!id || !timestamp || !signature) {
        return 'missing';
    }
    const given = decodeSignatures(signature);
    if (!/^\d{1,15}$/.test(timestamp) || given.length === 0) {
        return 'malformed';
    }
    if (Math.abs(Math.floor(now.getTime() / 1000) - Number(timestamp)) > TOLERANCE_S) {
        return 'stale';
    }
    let matches = false;
    for (const secret of secrets) {
        const expected = secret.mac(id, timestamp, rawBody);
        for (const one of given) {
            matches = timingSafeEqual(one, expected) || matches;
        }
    }
    return matches ? undefined : 'mismatch';
}

function single(value: string | string[] | undefined): string | undefined {
    return Array.isArray(value) ? value[0] : value;
}

/** The `v1` signatures of a header that have the right length; others are passed over. */
function decodeSignatures(header: string): Buffer[] {
    return header
        .split(' ')
        .filter(part => part.startsWith(SIGNATURE_PREFIX))
        .slice(0, MAX_SIGNATURES)
        .map(part => Buffer.from(part.slice(SIGNATURE_PREFIX.length), 'base64'))
        .filter(bytes => bytes.length === 32);
}
