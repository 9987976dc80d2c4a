//! Orders in.

use super::*;

/// `POST /webhooks/{shop}/seller-order-ready`: an order that can be fetched.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SellerOrderReady {
    /// The shop's id of the order: one delivery for each, however often it is posted.
    seller_order_id: ShopId,
    /// The shop's channel.
    channel_id: ShopId,
    /// Where it is fetched.
    pickup: Stop<SentPhone>,
    /// Where it goes.
    drop: Stop<SentPhone>,
    /// The code that people know the order by.
    order_code: Option<SentCode>,
    /// Who sells it.
    seller: Option<Seller>,
    /// What is in it.
    #[schemars(length(max = MAX_ITEMS))]
    items: Option<Vec<Option<Item<SentCode>>>>,
    /// Shown to the driver; delays nothing.
    ready_at: Option<Moment>,
    /// An id of the sender's own, to find the delivery by.
    external_id: Option<ShopId>,
    /// Any JSON of at most 4 KiB and 64 levels; comes back in events, frames and REST.
    metadata: Option<Value>,
}

/// A pickup or a drop. `P` is a telephone number as shops write it, or as the service does.
#[derive(JsonSchema)]
#[schemars(rename = "Stop", rename_all = "camelCase")]
pub struct Stop<P> {
    lat: Latitude,
    lon: Longitude,
    address: Option<Line>,
    contact_name: Option<Name>,
    phone: Option<P>,
    notes: Option<Line>,
}

/// Who sells.
#[derive(JsonSchema)]
pub struct Seller {
    id: Option<ShopId>,
    name: Option<Name>,
}

/// Of an order. `C` is a code as shops write it, or as the service does.
#[derive(JsonSchema)]
#[schemars(rename = "Item")]
pub struct Item<C> {
    sku: Option<C>,
    name: Option<Name>,
    quantity: Option<Quantity>,
}

/// `POST /webhooks/{shop}/seller-order-cancelled`: an order that is called off.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SellerOrderCancelled {
    seller_order_id: ShopId,
    channel_id: ShopId,
    reason: Option<Line>,
}
