import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EventsController } from '../../src/events/events.controller';
import { DriverTrackerPlugin } from '../../src/plugin';

async function statusOf(request: object): Promise<number> {
    let answered = 0;
    const response = { status: (status: number) => ((answered = status), { json: () => {} }) };
    await new EventsController({} as never, { eventSecrets: [] } as never).take(request as never, response as never);
    return answered;
}

test('a body that another parser has eaten is asked for again, and not lost', async () => {
    assert.equal(await statusOf({ body: { event: 1 }, headers: { 'content-length': '11' } }), 503);
    assert.equal(await statusOf({ body: { event: 1 }, headers: { 'transfer-encoding': 'chunked' } }), 503);
    assert.equal(await statusOf({ body: undefined, headers: {} }), 400);
    assert.equal(await statusOf({ body: Buffer.from('x'), headers: {} }), 401);
});

test("the plugin's parser comes before the shop's own", () => {
    const own = { route: '/', handler: () => {}, beforeListen: true };
    const config = { customFields: {}, shippingOptions: {}, apiOptions: { middleware: [own] } };
    const configure = Reflect.getMetadata('configuration', DriverTrackerPlugin) as (given: object) => typeof config;
    assert.deepEqual(configure(config).apiOptions.middleware.indexOf(own), 1);
});
