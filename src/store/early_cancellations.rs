//! Stores cancellations that arrive before their order.
//!
//! The stored cancellation is deleted in the transaction that inserts the order and cancels it.

use sqlx::PgConnection;

use super::StoreError;
use super::statement::{query, query_scalar};
use crate::domain::ids::ShopName;

statements! {
    REMEMBER = "INSERT INTO early_cancellations (shop, seller_order_id, channel_id, reason)
        VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    TAKE = "DELETE FROM early_cancellations WHERE shop = $1 AND seller_order_id = $2
        RETURNING coalesce(reason, '')";
}

/// Stores the cancellation of an order that did not arrive yet. A repeat changes nothing.
pub async fn remember(
    conn: &mut PgConnection,
    shop: &ShopName,
    seller_order_id: &str,
    channel_id: &str,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    query(REMEMBER).bind(shop.as_str()).bind(seller_order_id).bind(channel_id).bind(reason).execute(conn).await?;
    Ok(())
}

/// Deletes the stored cancellation of an order and returns its reason. The reason is empty if the shop gave none.
pub async fn take(
    conn: &mut PgConnection,
    shop: &ShopName,
    seller_order_id: &str,
) -> Result<Option<String>, StoreError> {
    Ok(query_scalar(TAKE).bind(shop.as_str()).bind(seller_order_id).fetch_optional(conn).await?)
}
