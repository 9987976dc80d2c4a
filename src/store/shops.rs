//! Shops and where their events go.

use sqlx::PgConnection;

use super::StoreError;
use super::statement::{query, query_scalar};
use crate::domain::ids::ShopName;

statements! {
    ENSURE = "INSERT INTO shops (name) VALUES ($1) ON CONFLICT DO NOTHING";
    ENSURE_ENDPOINT = "INSERT INTO shop_endpoints (shop) VALUES ($1) ON CONFLICT DO NOTHING";
    EXISTS = "SELECT EXISTS (SELECT 1 FROM shops WHERE name = $1)";
    DISABLE_ENDPOINT = "UPDATE shop_endpoints SET enabled = false, disabled_at = clock_timestamp(), reason = $2
        WHERE shop = $1 AND enabled";
    ENABLE_ENDPOINT = "UPDATE shop_endpoints SET enabled = true, disabled_at = NULL, reason = NULL WHERE shop = $1";
}

/// Makes the shop and its endpoint if they are not there.
pub async fn ensure(conn: &mut PgConnection, shop: &ShopName) -> Result<(), StoreError> {
    query(ENSURE).bind(shop.as_str()).execute(&mut *conn).await?;
    query(ENSURE_ENDPOINT).bind(shop.as_str()).execute(conn).await?;
    Ok(())
}

/// Whether the shop is known.
pub async fn exists(conn: &mut PgConnection, shop: &ShopName) -> Result<bool, StoreError> {
    Ok(query_scalar(EXISTS).bind(shop.as_str()).fetch_one(conn).await?)
}

/// Stops posting to the shop; its events stay pending. `false` when it was stopped before.
pub async fn disable_endpoint(conn: &mut PgConnection, shop: &str, reason: &str) -> Result<bool, StoreError> {
    Ok(query(DISABLE_ENDPOINT).bind(shop).bind(reason).execute(conn).await?.rows_affected() > 0)
}

/// Posts to the shop again. `false` when there is no such shop.
pub async fn enable_endpoint(conn: &mut PgConnection, shop: &ShopName) -> Result<bool, StoreError> {
    Ok(query(ENABLE_ENDPOINT).bind(shop.as_str()).execute(conn).await?.rows_affected() > 0)
}
