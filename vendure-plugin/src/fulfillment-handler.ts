import { FulfillmentHandler, LanguageCode } from '@vendure/core';

import { FULFILLMENT_HANDLER_CODE } from './constants';

/**
 * The handler of fulfillments that driver-tracker drives. The plugin creates them when a driver has the order; made by
 * hand in the dashboard it is a fulfillment like any other.
 */
export const driverTrackerFulfillmentHandler = new FulfillmentHandler({
    code: FULFILLMENT_HANDLER_CODE,
    description: [{ languageCode: LanguageCode.en, value: 'Delivered by a driver of driver-tracker' }],
    args: {
        method: { type: 'string', required: false, defaultValue: '' },
        trackingCode: { type: 'string', required: false, defaultValue: '' },
    },
    createFulfillment: (_ctx, _orders, _lines, args) => ({ method: args.method, trackingCode: args.trackingCode }),
});
