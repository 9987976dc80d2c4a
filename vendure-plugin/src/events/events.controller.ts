import { Controller, Inject, Post, Req, Res } from '@nestjs/common';
import { Allow, Logger, Permission } from '@vendure/core';
import type { Request, Response } from 'express';

import { DRIVER_TRACKER_OPTIONS, EVENTS_PATH, LOGGER_CONTEXT } from '../constants';
import type { ResolvedOptions } from '../options';
import { refuseSignature } from '../signature';
import { DeliveryEvent, NoEventError, parseEvent } from './event';
import { EventApplier } from './event-applier';

/**
 * Takes the events of driver-tracker: `POST /driver-tracker/events`.
 *
 * | answer | when | driver-tracker then |
 * |---|---|---|
 * | 200 | committed, also what came before, came late, or is not known | is done |
 * | 401 | no good signature: a secret or a clock is wrong | tries again |
 * | 400, 422 | never an event, or an order that is not here | keeps it as a dead letter |
 * | 413, 415 | a body that is too large, or compressed (see `rawBody`) | tries again, or keeps it |
 * | 503 | Vendure cannot apply it just now, or another parser has eaten the body | tries again |
 */
@Controller(EVENTS_PATH)
export class EventsController {
    constructor(
        private readonly applier: EventApplier,
        @Inject(DRIVER_TRACKER_OPTIONS) private readonly options: ResolvedOptions,
    ) {}

    /** The body is raw: the signature is of its very bytes. */
    @Post()
    @Allow(Permission.Public)
    async take(@Req() request: Request, @Res() response: Response): Promise<void> {
        const { status, body } = await this.answer(request);
        response.status(status).json(body);
    }

    private async answer(request: Request): Promise<{ status: number; body: Record<string, unknown> }> {
        if (!Buffer.isBuffer(request.body)) {
            return withoutBytes(request);
        }
        const refusal = refuseSignature(this.options.eventSecrets, request.headers, request.body);
        if (refusal) {
            Logger.warn(`An event was refused: its signature is ${refusal}`, LOGGER_CONTEXT);
            return { status: 401, body: { error: 'a valid signature is required' } };
        }
        let event: DeliveryEvent | undefined;
        try {
            event = parseEvent(request.body);
            if (event.shop !== this.options.shop) {
                throw new NoEventError(422, `this is the shop ${this.options.shop}, not ${event.shop}`);
            }
            return { status: 200, body: { outcome: await this.applier.apply(event) } };
        } catch (error) {
            const line = `Event ${event?.eventId ?? ''} (${event?.event ?? 'unreadable'}): ${(error as Error).message}`;
            Logger.error(line, LOGGER_CONTEXT);
            if (error instanceof NoEventError) {
                return { status: error.status, body: { error: error.message } };
            }
            return { status: 503, body: { error: 'not possible just now' } };
        }
    }
}

/** No body at all, or one that was parsed before it came here: that is mended in the shop, and the event must not be lost. */
function withoutBytes({ headers }: Request): { status: number; body: Record<string, unknown> } {
    if (headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0) {
        return { status: 400, body: { error: 'there is no body' } };
    }
    const sentence =
        `the body of POST /${EVENTS_PATH} was parsed before the plugin could read its bytes, so that no signature fits: ` +
        'leave that path out of your own body parser, or register the parser after the plugins (apiOptions.middleware)';
    Logger.error(`No event can be taken: ${sentence}`, LOGGER_CONTEXT);
    return { status: 503, body: { error: 'not possible just now' } };
}
