/** What the shop configures, how it is checked, and what holds where it says nothing. */
import { Channel, Injector, Order, OrderState, RequestContext, Seller } from '@vendure/core';

import { resolveDropoffFromAddress, resolvePickupFromSeller } from './outbox/default-stops';
import { SigningSecret } from './signature';

/** A place where goods are fetched or brought. Latitudes lie within ±85.05112878, longitudes within ±180. */
export interface Stop {
    lat: number;
    lon: number;
    /** For people; at most 1,000 characters (longer texts are cut). */
    address?: string;
    contactName?: string;
    phone?: string;
    notes?: string;
}

/** A transition of an order, as `readyWhen` is asked about it. */
export interface ReadyTransition {
    /** The state that the order left; absent where it is not known (reconciliation, seller orders that begin paid). */
    fromState?: OrderState;
    toState: OrderState;
    /**
     * As it stands now, which may be a later state than `toState`. Always with `lines` (and their `productVariant`),
     * `shippingLines` (and their `shippingMethod`), `customer`, `surcharges`, `channels`; never an aggregate.
     */
    order: Order;
}

/** What the hooks are given: an order that is about to be sent, read after its transaction was committed. */
export interface DeliverableOrder {
    ctx: RequestContext;
    /** With all that `ReadyTransition` says. Of type Seller or Regular. */
    order: Order;
    /** The seller's channel of a Seller order; that of a Regular order. */
    channel: Channel;
    /** The channel's seller, where it has one. */
    seller?: Seller;
    /** Gives any provider of Vendure or of your plugins. */
    injector: Injector;
}

type Awaitable<T> = T | Promise<T>;

/** The options of `DriverTrackerPlugin.init()`. */
export interface DriverTrackerOptions {
    /** Where driver-tracker answers, for example `https://tracker.example.com`. */
    serviceUrl: string;
    /** The shop's name in driver-tracker. Default: `vendure`. */
    shop?: string;
    /** Signs what is posted to driver-tracker (`VENDURE_WEBHOOK_SECRET` there). Several while one takes the place of another. */
    signingSecrets: string | string[];
    /** Verifies events of driver-tracker (`VENDURE_EVENTS_SECRET` there). Several while one takes the place of another. */
    eventSecrets: string | string[];

    /**
     * Whether an order that made this transition is to be delivered. Default: it became `PaymentSettled`. It is asked about
     * each transition but those of a cart (to `AddingItems`, `ArrangingPayment`), by the process that posts, after the commit. Where it throws or takes
     * longer than `timeoutMs` it is asked again later, as a post is. Aggregate orders are never sent, whatever this says.
     */
    readyWhen?: (transition: ReadyTransition) => Awaitable<boolean>;
    /**
     * Also sends orders whose shipping method has another fulfillment handler than the plugin's. Default: false, so that what
     * is fetched in the store or sent by parcel is left alone. Orders without shipping are never sent.
     */
    anyShippingMethod?: boolean;
    /** Where the order is fetched. Default: the custom fields of the seller. `undefined`: not known, an operator must see to it. */
    resolvePickup?: (order: DeliverableOrder) => Awaitable<Stop | undefined>;
    /** Where the order is brought. Default: the custom fields of the shipping address. */
    resolveDropoff?: (order: DeliverableOrder) => Awaitable<Stop | undefined>;
    /** Any JSON of at most 4 KiB; it comes back in events. Default: none. */
    metadata?: (order: DeliverableOrder) => Awaitable<Record<string, unknown> | undefined>;

    /** Which process posts to driver-tracker. Default: `worker`. */
    runIn?: 'worker' | 'server' | 'both';
    /** How often the outbox is looked at, in ms. Default: 1000. */
    pollIntervalMs?: number;
    /** How long one post may take, hooks and answer included, in ms. Default: 10000. */
    timeoutMs?: number;
    /** How long a row that is being posted belongs to one process, in ms. Default: three times `timeoutMs`. */
    leaseMs?: number;
    /** The limit of the first random wait after a failure, in ms; doubles each time. Default: 1000. */
    retryBaseMs?: number;
    /** The highest limit of a random wait, in ms. Default: 300000 (5 minutes). */
    retryMaxMs?: number;
    /** After this long an order that driver-tracker does not take is parked for an operator, in hours. Default: 72. */
    giveUpAfterHours?: number;
    /** How often orders that should have a delivery and have none are looked for, in minutes. Default: 5. */
    reconcileEveryMinutes?: number;
    /** How old such an order may be, in hours. Default: 24. */
    reconcileWindowHours?: number;
    /** How long an order that was sent may have no event before it is sent again, in minutes. Default: 60. */
    resendAfterMinutes?: number;
}

/** The options with every default filled in and every secret read. */
export interface ResolvedOptions {
    serviceUrl: string;
    shop: string;
    signingSecrets: SigningSecret[];
    eventSecrets: SigningSecret[];
    readyWhen: NonNullable<DriverTrackerOptions['readyWhen']>;
    anyShippingMethod: boolean;
    resolvePickup: NonNullable<DriverTrackerOptions['resolvePickup']>;
    resolveDropoff: NonNullable<DriverTrackerOptions['resolveDropoff']>;
    metadata: NonNullable<DriverTrackerOptions['metadata']>;
    runIn: 'worker' | 'server' | 'both';
    pollIntervalMs: number;
    timeoutMs: number;
    leaseMs: number;
    retryBaseMs: number;
    retryMaxMs: number;
    giveUpAfterMs: number;
    reconcileEveryMs: number;
    reconcileWindowMs: number;
    resendAfterMs: number;
}

/** What holds without `readyWhen`. It needs no more than the state, and so is decided in the order's own transaction. */
export const readyByDefault: ResolvedOptions['readyWhen'] = ({ toState }) => toState === 'PaymentSettled';

/** A bad option. The message says which one, and what to do; it never holds a secret. */
export class DriverTrackerOptionsError extends Error {
    constructor(option: string, sentence: string) {
        super(`DriverTrackerPlugin: the option ${option} ${sentence}`);
        this.name = 'DriverTrackerOptionsError';
    }
}

/** Checks the options; throws `DriverTrackerOptionsError` for the first that cannot work. */
export function resolveOptions(given: DriverTrackerOptions): ResolvedOptions {
    if (typeof given !== 'object' || given === null) {
        throw new DriverTrackerOptionsError('object', 'is missing: call DriverTrackerPlugin.init({ serviceUrl, … })');
    }
    const timeoutMs = number(given, 'timeoutMs', 10_000, 100, 60_000);
    const leaseMs = number(given, 'leaseMs', 3 * timeoutMs, 100, 3_600_000);
    if (leaseMs <= timeoutMs) {
        throw new DriverTrackerOptionsError('leaseMs', 'must be longer than timeoutMs, or two processes would post one order');
    }
    const retryBaseMs = number(given, 'retryBaseMs', 1_000, 10, 60_000);
    return {
        serviceUrl: serviceUrl(given.serviceUrl),
        shop: shop(given.shop ?? 'vendure'),
        signingSecrets: secrets('signingSecrets', given.signingSecrets),
        eventSecrets: secrets('eventSecrets', given.eventSecrets),
        readyWhen: hook(given, 'readyWhen') ?? readyByDefault,
        anyShippingMethod: flag('anyShippingMethod', given.anyShippingMethod ?? false),
        resolvePickup: hook(given, 'resolvePickup') ?? resolvePickupFromSeller,
        resolveDropoff: hook(given, 'resolveDropoff') ?? resolveDropoffFromAddress,
        metadata: hook(given, 'metadata') ?? (() => undefined),
        runIn: runIn(given.runIn ?? 'worker'),
        pollIntervalMs: number(given, 'pollIntervalMs', 1_000, 50, 600_000),
        timeoutMs,
        leaseMs,
        retryBaseMs,
        retryMaxMs: number(given, 'retryMaxMs', Math.max(300_000, retryBaseMs), retryBaseMs, 86_400_000),
        giveUpAfterMs: number(given, 'giveUpAfterHours', 72, 0.01, 8_760) * 3_600_000,
        reconcileEveryMs: number(given, 'reconcileEveryMinutes', 5, 0.01, 1_440) * 60_000,
        reconcileWindowMs: number(given, 'reconcileWindowHours', 24, 0.01, 8_760) * 3_600_000,
        resendAfterMs: number(given, 'resendAfterMinutes', 60, 0.01, 10_080) * 60_000,
    };
}

function serviceUrl(text: unknown): string {
    const example = 'such as https://tracker.example.com';
    if (typeof text !== 'string' || !URL.canParse(text)) {
        throw new DriverTrackerOptionsError('serviceUrl', `must be the address of driver-tracker, ${example}`);
    }
    const url = new URL(text);
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
        throw new DriverTrackerOptionsError('serviceUrl', `must begin with http:// or https://, ${example}`);
    }
    if (url.username || url.password || url.search || url.hash) {
        throw new DriverTrackerOptionsError('serviceUrl', `must hold no user, no query and no fragment, ${example}`);
    }
    return url.href.replace(/\/+$/, '');
}

function shop(name: unknown): string {
    if (typeof name !== 'string' || !/^[a-z0-9][a-z0-9-]{0,62}$/.test(name)) {
        throw new DriverTrackerOptionsError('shop', 'must be 1 to 63 of a-z, 0-9 and -, the first not -');
    }
    return name;
}

function secrets(option: string, given: unknown): SigningSecret[] {
    const texts = Array.isArray(given) ? given : [given];
    const usable = texts.length > 0 && texts.every(text => typeof text === 'string' && text !== '');
    if (!usable) {
        throw new DriverTrackerOptionsError(option, 'must hold one secret or several, each whsec_ and base64');
    }
    return texts.map((text: string) => {
        try {
            return SigningSecret.parse(text);
        } catch (error) {
            throw new DriverTrackerOptionsError(option, `cannot be used: ${(error as Error).message}`);
        }
    });
}

function hook<K extends 'readyWhen' | 'resolvePickup' | 'resolveDropoff' | 'metadata'>(
    given: DriverTrackerOptions,
    option: K,
): DriverTrackerOptions[K] {
    const value = given[option];
    if (value !== undefined && typeof value !== 'function') {
        throw new DriverTrackerOptionsError(option, 'must be a function');
    }
    return value;
}

function flag(option: string, value: unknown): boolean {
    if (typeof value !== 'boolean') {
        throw new DriverTrackerOptionsError(option, 'must be true or false');
    }
    return value;
}

function runIn(value: unknown): 'worker' | 'server' | 'both' {
    if (value === 'worker' || value === 'server' || value === 'both') {
        return value;
    }
    throw new DriverTrackerOptionsError('runIn', 'must be worker, server or both');
}

type NumberOption = { [K in keyof DriverTrackerOptions]-?: DriverTrackerOptions[K] extends number | undefined ? K : never }[keyof DriverTrackerOptions];

function number(given: DriverTrackerOptions, option: NumberOption, fallback: number, min: number, max: number): number {
    const value = given[option] ?? fallback;
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
        throw new DriverTrackerOptionsError(option, `must be a number from ${min} to ${max}`);
    }
    return value;
}
