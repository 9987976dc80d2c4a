//! Stores shops: their limits, the addresses of their events, and the rows of their secrets.
//!
//! - A secret is derived from a key of the service. A table must not contain a secret.
//! - A new shop, and a change of a limit, an address or a secret, increase the version of the shops. Every node then reads the
//!   shops again.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as, query_scalar};
use crate::domain::ids::ShopName;

statements! {
    ENSURE = "INSERT INTO shops (name) VALUES ($1) ON CONFLICT DO NOTHING";
    ENSURE_ENDPOINT = "INSERT INTO shop_endpoints (shop) VALUES ($1) ON CONFLICT DO NOTHING";
    EXISTS = "SELECT EXISTS (SELECT 1 FROM shops WHERE name = $1)";
    DISABLE_ENDPOINT = "UPDATE shop_endpoints SET enabled = false, disabled_at = clock_timestamp(), reason = $2
        WHERE shop = $1 AND enabled AND url IS NOT DISTINCT FROM $3";
    ENABLE_ENDPOINT = "UPDATE shop_endpoints SET enabled = true, disabled_at = NULL, reason = NULL WHERE shop = $1";
    CREATE = "INSERT INTO shops (name, orders_per_second) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    REQUIRE = "UPDATE database_identity SET min_program_schema = greatest(min_program_schema, 6)";
    SET_LIMIT = "UPDATE shops SET orders_per_second = $2, updated_at = clock_timestamp() WHERE name = $1";
    SET_URL = "UPDATE shop_endpoints SET url = $2 WHERE shop = $1";
    TOUCH = "UPDATE shops SET updated_at = clock_timestamp() WHERE name = $1";
    CHANGED = "UPDATE shops_version SET version = version + 1";
    VERSION = "SELECT version, (SELECT count(*) FROM shop_secrets WHERE expires_at <= clock_timestamp()) FROM shops_version";
    LIST = "SELECT s.name, s.orders_per_second, s.created_at, s.updated_at, e.url, e.enabled, e.disabled_at, e.reason
        FROM shops s JOIN shop_endpoints e ON e.shop = s.name
        WHERE ($1::text IS NULL OR s.name = $1)
          AND ($2::timestamptz IS NULL OR (s.created_at, s.name) < ($2, $3::text))
        ORDER BY s.created_at DESC, s.name DESC LIMIT $4";
    SECRETS = "SELECT id, shop, direction, fingerprint, created_at, expires_at FROM shop_secrets
        WHERE ($1::text IS NULL OR shop = $1) AND (expires_at IS NULL OR expires_at > clock_timestamp())
        ORDER BY shop, direction, id DESC";
    ADD_SECRET = "INSERT INTO shop_secrets (id, shop, direction, fingerprint) VALUES ($1, $2, $3, $4)";
    EXPIRE_OTHERS = "UPDATE shop_secrets SET expires_at = least(coalesce(expires_at, 'infinity'),
               clock_timestamp() + make_interval(secs => $4::double precision))
        WHERE shop = $1 AND direction = $2 AND id <> $3";
    DROP_SECRET = "DELETE FROM shop_secrets WHERE shop = $1 AND id = $2";
    HAS_URL = "SELECT EXISTS (SELECT 1 FROM shop_endpoints WHERE shop = $1 AND url IS NOT NULL)";
    LOCK = "SELECT name FROM shops WHERE name = $1 FOR NO KEY UPDATE";
}

/// Creates the shop and its endpoint if they do not exist.
pub async fn ensure(conn: &mut PgConnection, shop: &ShopName) -> Result<(), StoreError> {
    query(ENSURE).bind(shop.as_str()).execute(&mut *conn).await?;
    query(ENSURE_ENDPOINT).bind(shop.as_str()).execute(conn).await?;
    Ok(())
}

/// Whether the shop exists.
pub async fn exists(conn: &mut PgConnection, shop: &ShopName) -> Result<bool, StoreError> {
    Ok(query_scalar(EXISTS).bind(shop.as_str()).fetch_one(conn).await?)
}

/// Stops posting to the shop at this address. `None` means the configured address. The shop's events stay pending.
///
/// Returns `false` if posting was stopped before, or if the shop has another address now.
pub async fn disable_endpoint(
    conn: &mut PgConnection,
    shop: &str,
    url: Option<&str>,
    reason: &str,
) -> Result<bool, StoreError> {
    Ok(query(DISABLE_ENDPOINT).bind(shop).bind(reason).bind(url).execute(conn).await?.rows_affected() > 0)
}

/// Starts posting to the shop again. Returns `false` if the shop does not exist.
pub async fn enable_endpoint(conn: &mut PgConnection, shop: &ShopName) -> Result<bool, StoreError> {
    Ok(query(ENABLE_ENDPOINT).bind(shop.as_str()).execute(conn).await?.rows_affected() > 0)
}

/// Creates a shop. Returns `false` if a shop with this name exists.
pub async fn create(conn: &mut PgConnection, shop: &ShopName, limit: Option<i32>) -> Result<bool, StoreError> {
    let made = query(CREATE).bind(shop.as_str()).bind(limit).execute(&mut *conn).await?.rows_affected() > 0;
    if made {
        query(ENSURE_ENDPOINT).bind(shop.as_str()).execute(&mut *conn).await?;
        // A program that knows only the configured shop would post this shop's events there. So an older program is refused.
        query(REQUIRE).execute(&mut *conn).await?;
        changed(conn).await?;
    }
    Ok(made)
}

/// Locks a shop, so that one transaction at a time changes it. Returns `false` if the shop does not exist.
pub async fn lock(conn: &mut PgConnection, shop: &ShopName) -> Result<bool, StoreError> {
    let found: Option<String> = query_scalar(LOCK).bind(shop.as_str()).fetch_optional(conn).await?;
    Ok(found.is_some())
}

/// Limits the number of orders that the shop may post in a second. `None` means the limit of all shops.
pub async fn set_limit(conn: &mut PgConnection, shop: &ShopName, limit: Option<i32>) -> Result<(), StoreError> {
    query(SET_LIMIT).bind(shop.as_str()).bind(limit).execute(&mut *conn).await?;
    changed(conn).await
}

/// Sets the address for the shop's events. `None` means that the shop receives no events.
pub async fn set_url(conn: &mut PgConnection, shop: &ShopName, url: Option<&str>) -> Result<(), StoreError> {
    query(SET_URL).bind(shop.as_str()).bind(url).execute(&mut *conn).await?;
    query(TOUCH).bind(shop.as_str()).execute(&mut *conn).await?;
    changed(conn).await
}

/// Whether the shop has an address for its events.
pub async fn has_url(conn: &mut PgConnection, shop: &str) -> Result<bool, StoreError> {
    Ok(query_scalar(HAS_URL).bind(shop).fetch_one(conn).await?)
}

/// Increases the version, so that every node reads the shops again.
async fn changed(conn: &mut PgConnection) -> Result<(), StoreError> {
    query(CHANGED).execute(conn).await?;
    Ok(())
}

/// Returns a pair of numbers that differs after a shop has changed or a secret has expired.
pub async fn version(conn: &mut PgConnection) -> Result<(i64, i64), StoreError> {
    Ok(query_as(VERSION).fetch_one(conn).await?)
}

/// A shop.
#[derive(Debug, Clone, FromRow)]
pub struct ShopRow {
    /// The name of the shop.
    pub name: String,
    /// The shop's own limit of orders in a second. 0 means no limit.
    pub orders_per_second: Option<i32>,
    /// When the shop was created.
    pub created_at: DateTime<Utc>,
    /// When the shop last changed.
    pub updated_at: DateTime<Utc>,
    /// The address for the shop's events.
    pub url: Option<String>,
    /// Whether events are posted to the shop.
    pub enabled: bool,
    /// When posting was stopped.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Why posting was stopped.
    pub reason: Option<String>,
}

/// Returns shops, newest first. `after` is the creation time and the name of the last shop of the previous page.
pub async fn list(
    conn: &mut PgConnection,
    only: Option<&str>,
    after: Option<(DateTime<Utc>, String)>,
    limit: i64,
) -> Result<Vec<ShopRow>, StoreError> {
    let (made, name) = after.unzip();
    Ok(query_as(LIST).bind(only).bind(made).bind(name).bind(limit).fetch_all(conn).await?)
}

/// Reads a shop.
pub async fn get(conn: &mut PgConnection, shop: &ShopName) -> Result<Option<ShopRow>, StoreError> {
    Ok(list(conn, Some(shop.as_str()), None, 1).await?.pop())
}

/// The values that a secret is derived from.
#[derive(Debug, Clone, FromRow)]
pub struct SecretRow {
    /// The id of the secret.
    pub id: Uuid,
    /// The shop of the secret.
    pub shop: String,
    /// `orders` or `events`.
    pub direction: String,
    /// The fingerprint of the key that the secret is derived from.
    pub fingerprint: String,
    /// When the secret was created.
    pub created_at: DateTime<Utc>,
    /// When the secret expires. `None` if no time is set.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Returns the secrets that are valid now, of one shop or of all shops, sorted by shop and direction, newest first.
pub async fn secrets(conn: &mut PgConnection, only: Option<&str>) -> Result<Vec<SecretRow>, StoreError> {
    Ok(query_as(SECRETS).bind(only).fetch_all(conn).await?)
}

/// Adds a secret. The shop's other secrets of the same direction expire after `overlap_s` seconds at the latest.
pub async fn add_secret(
    conn: &mut PgConnection,
    shop: &ShopName,
    direction: &str,
    (id, fingerprint): (Uuid, &str),
    overlap_s: f64,
) -> Result<(), StoreError> {
    query(ADD_SECRET).bind(id).bind(shop.as_str()).bind(direction).bind(fingerprint).execute(&mut *conn).await?;
    query(EXPIRE_OTHERS).bind(shop.as_str()).bind(direction).bind(id).bind(overlap_s).execute(&mut *conn).await?;
    query(TOUCH).bind(shop.as_str()).execute(&mut *conn).await?;
    changed(conn).await
}

/// Deletes a secret, so that it is invalid at once. Returns `false` if the shop has no such secret.
pub async fn drop_secret(conn: &mut PgConnection, shop: &ShopName, id: Uuid) -> Result<bool, StoreError> {
    let dropped = query(DROP_SECRET).bind(shop.as_str()).bind(id).execute(&mut *conn).await?.rows_affected() > 0;
    if dropped {
        query(TOUCH).bind(shop.as_str()).execute(&mut *conn).await?;
        changed(conn).await?;
    }
    Ok(dropped)
}
