//! The orders that shops post.

use super::*;

/// `POST /webhooks/{shop}/seller-order-ready`: an order that is ready for pickup.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SellerOrderReady {
    /// The shop's id of the order. Each id has one delivery, however often it is posted.
    seller_order_id: ShopId,
    /// The shop's channel.
    channel_id: ShopId,
    /// The place of the pickup.
    pickup: Stop<SentPhone>,
    /// The place of the drop.
    drop: Stop<SentPhone>,
    /// The order code that people use.
    order_code: Option<SentCode>,
    /// The seller of the order.
    seller: Option<Seller>,
    /// The items of the order.
    #[schemars(length(max = MAX_ITEMS))]
    items: Option<Vec<Option<Item<SentCode>>>>,
    /// The time is shown to the driver. It does not delay the assignment.
    ready_at: Option<Moment>,
    /// The sender's own id for finding the delivery.
    external_id: Option<ShopId>,
    /// Any JSON of at most 4 KiB and 64 levels. It is returned in events, frames and REST answers.
    metadata: Option<Value>,
}

/// A pickup or a drop. `P` is a telephone number in the form of the shop or of the service.
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

/// The seller.
#[derive(JsonSchema)]
pub struct Seller {
    id: Option<ShopId>,
    name: Option<Name>,
}

/// An item of an order. `C` is a code in the form of the shop or of the service.
#[derive(JsonSchema)]
#[schemars(rename = "Item")]
pub struct Item<C> {
    sku: Option<C>,
    name: Option<Name>,
    quantity: Option<Quantity>,
}

/// `POST /webhooks/{shop}/seller-order-cancelled`: an order that is cancelled.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct SellerOrderCancelled {
    seller_order_id: ShopId,
    channel_id: ShopId,
    reason: Option<Line>,
}
