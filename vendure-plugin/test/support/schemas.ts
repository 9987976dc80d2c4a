/** The JSON Schemas of `docs/schemas`, made of the service's own types, and the examples that both sides are held to. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import Ajv2020 from 'ajv/dist/2020';
import addFormats from 'ajv-formats';

/** Those that the plugin has to do with; others lie beside them. */
export const SCHEMAS = ['seller-order-ready', 'seller-order-cancelled', 'delivery-event'] as const;
export type SchemaName = (typeof SCHEMAS)[number];

const DIR = path.resolve(__dirname, '../../../../docs/schemas');

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

/** `{schema}.{what}.json`, of those schemas: what fits, or in `examples/invalid` what does not. */
export function examples(folder: 'examples' | 'examples/invalid' = 'examples'): Example[] {
    const dir = path.join(DIR, folder);
    return readdirSync(dir).flatMap(file => {
        const schema = SCHEMAS.find(name => file.startsWith(`${name}.`));
        return schema ? [{ file, schema, body: read(path.join(dir, file)) }] : [];
    });
}

function read(file: string): Record<string, unknown> {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}
