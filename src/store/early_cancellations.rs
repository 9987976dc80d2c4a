//! Orders that a shop called off before it sent them.

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

/// Remembers that an order, not yet known, is called off.
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

/// Takes the remembered cancellation of an order, with its reason (empty when none was given).
pub async fn take(
    conn: &mut PgConnection,
    shop: &ShopName,
    seller_order_id: &str,
) -> Result<Option<String>, StoreError> {
    Ok(query_scalar(TAKE).bind(shop.as_str()).bind(seller_order_id).fetch_optional(conn).await?)
}
