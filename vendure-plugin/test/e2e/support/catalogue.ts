/** Fills the empty shop through the Admin API: two sellers with a channel and a product each, and a product of the shop's own. */
import { GraphqlClient } from './graphql';
import { PAYMENT_METHOD, SELLER_WHOSE_ORDERS_BEGIN_PAID } from './marketplace';

/** What can be bought. */
export interface Catalogue {
    /** The variants of seller A, of seller B, and of the shop itself. */
    variantA: string;
    variantB: string;
    variantOwn: string;
}

const PICKUP_A = { lat: 12.9716, lon: 77.5946, pickupAddress: 'Kitchen A', pickupPhone: '+91 80 5550111' };
const PICKUP_B = { lat: 12.975, lon: 77.601, pickupAddress: 'Kitchen B' };
const PICKUP_OWN = { lat: 12.968, lon: 77.59, pickupAddress: 'The shop itself' };

const name = (value: string) => [{ languageCode: 'en', name: value, slug: value.toLowerCase(), description: '' }];
const plainName = (value: string) => [{ languageCode: 'en', name: value }];
const id = (selection: string) => `{ ... on ${selection} { id } ... on ErrorResult { errorCode message } }`;

export async function fillShop(admin: GraphqlClient): Promise<Catalogue> {
    const { zoneId, taxCategoryId } = await prepareDefaultChannel(admin);
    await admin.mutate(`mutation ($input: CreatePaymentMethodInput!) { createPaymentMethod(input: $input) { id } }`, {
        input: {
            code: PAYMENT_METHOD,
            enabled: true,
            handler: { code: 'dummy-payment-handler', arguments: [{ name: 'automaticSettle', value: 'true' }] },
            translations: [{ languageCode: 'en', name: 'Test payment', description: '' }],
        },
    });
    const channelA = await addSeller(admin, 'seller-a', zoneId, PICKUP_A);
    const channelB = await addSeller(admin, SELLER_WHOSE_ORDERS_BEGIN_PAID, zoneId, PICKUP_B);
    return {
        variantA: await addProduct(admin, 'Dosa', taxCategoryId, channelA),
        variantB: await addProduct(admin, 'Idli', taxCategoryId, channelB),
        variantOwn: await addProduct(admin, 'Tea', taxCategoryId),
    };
}

/** A country, taxes, free shipping by this plugin's handler, and a place where the shop's own goods are fetched. */
async function prepareDefaultChannel(admin: GraphqlClient): Promise<{ zoneId: string; taxCategoryId: string }> {
    const country = await admin.mutate(
        `mutation ($input: CreateCountryInput!) { createCountry(input: $input) { id } }`,
        { input: { code: 'IN', enabled: true, translations: plainName('India') } },
    );
    const zone = await admin.mutate(`mutation ($input: CreateZoneInput!) { createZone(input: $input) { id } }`, {
        input: { name: 'India', memberIds: [country.id] },
    });
    const { activeChannel } = await admin.query(`{ activeChannel { id seller { id } } }`);
    await admin.mutate(`mutation ($input: UpdateChannelInput!) { updateChannel(input: $input) ${id('Channel')} }`, {
        input: { id: activeChannel.id, defaultTaxZoneId: zone.id, defaultShippingZoneId: zone.id },
    });
    await admin.mutate(`mutation ($input: UpdateSellerInput!) { updateSeller(input: $input) { id } }`, {
        input: { id: activeChannel.seller.id, customFields: PICKUP_OWN },
    });
    const category = await admin.mutate(
        `mutation ($input: CreateTaxCategoryInput!) { createTaxCategory(input: $input) { id } }`,
        { input: { name: 'None', isDefault: true } },
    );
    await admin.mutate(`mutation ($input: CreateTaxRateInput!) { createTaxRate(input: $input) { id } }`, {
        input: { name: 'None', enabled: true, value: 0, categoryId: category.id, zoneId: zone.id },
    });
    await admin.mutate(`mutation ($input: CreateShippingMethodInput!) { createShippingMethod(input: $input) { id } }`, {
        input: {
            code: 'driver',
            fulfillmentHandler: 'driver-tracker',
            checker: { code: 'default-shipping-eligibility-checker', arguments: [{ name: 'orderMinimum', value: '0' }] },
            calculator: {
                code: 'default-shipping-calculator',
                arguments: [
                    { name: 'rate', value: '0' },
                    { name: 'includesTax', value: 'auto' },
                    { name: 'taxRate', value: '0' },
                ],
            },
            translations: [{ languageCode: 'en', name: 'By driver', description: '' }],
        },
    });
    return { zoneId: zone.id, taxCategoryId: category.id };
}

/** A seller and their channel, whose id it gives. */
async function addSeller(admin: GraphqlClient, code: string, zoneId: string, customFields: object): Promise<string> {
    const seller = await admin.mutate(`mutation ($input: CreateSellerInput!) { createSeller(input: $input) { id } }`, {
        input: { name: code, customFields },
    });
    const channel = await admin.mutate(
        `mutation ($input: CreateChannelInput!) { createChannel(input: $input) ${id('Channel')} }`,
        {
            input: {
                code,
                token: code,
                sellerId: seller.id,
                defaultLanguageCode: 'en',
                defaultCurrencyCode: 'USD',
                pricesIncludeTax: true,
                defaultTaxZoneId: zoneId,
                defaultShippingZoneId: zoneId,
            },
        },
    );
    // Everything lies in one store, which every seller may take from.
    const { stockLocations } = await admin.query(`{ stockLocations { items { id } } }`);
    await admin.query(
        `mutation ($input: AssignStockLocationsToChannelInput!) { assignStockLocationsToChannel(input: $input) { id } }`,
        { input: { channelId: channel.id, stockLocationIds: [stockLocations.items[0].id] } },
    );
    return channel.id;
}

/** A product with one variant, whose id it gives. */
async function addProduct(admin: GraphqlClient, title: string, taxCategoryId: string, channelId?: string): Promise<string> {
    const product = await admin.mutate(`mutation ($input: CreateProductInput!) { createProduct(input: $input) { id } }`, {
        input: { enabled: true, translations: name(title) },
    });
    const [variant] = await admin.mutate(
        `mutation ($input: [CreateProductVariantInput!]!) { createProductVariants(input: $input) { id } }`,
        {
            input: [
                {
                    productId: product.id,
                    sku: `sku-${title.toLowerCase()}`,
                    price: 500,
                    taxCategoryId,
                    stockOnHand: 1_000,
                    trackInventory: 'TRUE',
                    translations: plainName(title),
                },
            ],
        },
    );
    if (channelId) {
        await admin.query(
            `mutation ($input: AssignProductsToChannelInput!) { assignProductsToChannel(input: $input) { id } }`,
            { input: { channelId, productIds: [product.id] } },
        );
    }
    return variant.id;
}
