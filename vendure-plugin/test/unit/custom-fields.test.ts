import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { CustomFieldConfig } from '@vendure/core';

import { withDriverTrackerFields } from '../../src/custom-fields';

type Fields = Record<string, CustomFieldConfig[]>;

test('the fields of a seller are not in the Shop API, those of an address are', () => {
    const { Seller, Address } = withDriverTrackerFields<Fields>({ Seller: [], Address: [] });
    assert.equal(Seller?.length, 6);
    assert.deepEqual(Seller?.filter(field => field.public !== false), []);
    assert.deepEqual(Address?.map(field => field.public), [undefined, undefined]);
});

test('a field that the shop has is left as it is', () => {
    const own = { name: 'lat', type: 'float' as const };
    const { Seller } = withDriverTrackerFields<Fields>({ Seller: [own] });
    assert.deepEqual(Seller?.filter(field => field.name === 'lat'), [own]);
});
