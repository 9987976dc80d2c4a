/** The JSON Schemas of `docs/schemas`, made of the service's own types, and the examples that both sides are held to. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import Ajv2020 from 'ajv/dist/2020';
import addFormats from 'ajv-formats';

export type SchemaName = 'seller-order-ready' | 'delivery-event';

const DIR = path.resolve(__dirname, '../../../../docs/schemas');

/** Why nothing can be checked; `false` when it can. */
export const schemasMissing = existsSync(DIR) ? false : 'docs/schemas is not there';

const ajv = new Ajv2020({ allErrors: true, strict: false });
addFormats(ajv);

/** What is wrong with `value`, in words; empty when it fits. */
export function faults(name: SchemaName, value: unknown): string {
    const validate = ajv.getSchema(name) ?? ajv.addSchema(read(path.join(DIR, `${name}.json`)), name).getSchema(name);
    assert.ok(validate);
    return validate(value) ? '' : ajv.errorsText(validate.errors);
}

export interface Example {
    file: string;
    schema: SchemaName;
    body: Record<string, unknown>;
}

/** The examples of those two schemas; others lie beside them. */
export function examples(): Example[] {
    const dir = path.join(DIR, 'examples');
    return readdirSync(dir)
        .filter(file => file.endsWith('.json'))
        .map(file => ({ file, body: read(path.join(dir, file)) }))
        .filter(({ body }) => 'eventId' in body || ('pickup' in body && 'drop' in body && 'channelId' in body))
        .map(({ file, body }) => ({ file, body, schema: 'eventId' in body ? 'delivery-event' : 'seller-order-ready' }));
}

function read(file: string): Record<string, unknown> {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}
