//! Stores credentials: API keys, drivers' bearer tokens, one-use WebSocket tickets.
//!
//! Only SHA-256 hashes are stored. A secret must not reach a table.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as, query_scalar};
use crate::domain::ids::{ApiKeyId, DriverId, TokenId};

statements! {
    INSERT_API_KEY = "INSERT INTO api_keys (id, name, scope, shop, key_hash) VALUES ($1, $2, $3, $4, $5)";
    FIND_API_KEY = "SELECT id, scope, shop FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL";
    LIST_API_KEYS = "SELECT id, name, scope, shop, created_at, revoked_at FROM api_keys ORDER BY id";
    REVOKE_API_KEY = "UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL";
    INSERT_TOKEN = "INSERT INTO driver_tokens (id, driver_id, token_hash) VALUES ($1, $2, $3)";
    FIND_TOKEN = "SELECT t.id, t.driver_id FROM driver_tokens t JOIN drivers d ON d.id = t.driver_id
        WHERE t.token_hash = $1 AND t.revoked_at IS NULL AND d.active";
    LIST_TOKENS = "SELECT id, created_at, revoked_at FROM driver_tokens WHERE driver_id = $1
        AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
    REVOKE_TOKEN = "UPDATE driver_tokens SET revoked_at = coalesce(revoked_at, clock_timestamp())
        WHERE id = $1 AND driver_id = $2";
    INSERT_TICKET = "INSERT INTO ws_tickets (ticket_hash, token_id, expires_at)
        VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3::double precision)) RETURNING expires_at";
    USE_TICKET = "WITH used AS (
            DELETE FROM ws_tickets WHERE ticket_hash = $1 RETURNING token_id, expires_at)
        SELECT t.id, t.driver_id FROM used u JOIN driver_tokens t ON t.id = u.token_id
        JOIN drivers d ON d.id = t.driver_id
        WHERE u.expires_at > clock_timestamp() AND t.revoked_at IS NULL AND d.active";
    PRUNE_TICKETS = "DELETE FROM ws_tickets WHERE expires_at < clock_timestamp()";
}

/// A valid API key.
#[derive(Debug, Clone, FromRow)]
pub struct ApiKey {
    /// The id of the key's row.
    pub id: Uuid,
    /// `admin`, `read` or `shop`.
    pub scope: String,
    /// The shop of a `shop` key.
    pub shop: Option<String>,
}

/// An API key in a list.
#[derive(Debug, Clone, FromRow)]
pub struct ApiKeyRow {
    /// The id of the key's row.
    pub id: Uuid,
    /// A name that says what the key is for.
    pub name: String,
    /// `admin`, `read` or `shop`.
    pub scope: String,
    /// The shop of a `shop` key.
    pub shop: Option<String>,
    /// When the key was created.
    pub created_at: DateTime<Utc>,
    /// When the key was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A driver's token in a list.
#[derive(Debug, Clone, FromRow)]
pub struct TokenRow {
    /// The id of the token's row.
    pub id: Uuid,
    /// When the token was created.
    pub created_at: DateTime<Utc>,
    /// When the token was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The driver that a token or a ticket identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverIdentity {
    /// The driver.
    pub driver_id: DriverId,
    /// The token.
    pub token_id: TokenId,
}

/// Stores an API key by its hash.
pub async fn insert_api_key(
    conn: &mut PgConnection,
    name: &str,
    scope: &str,
    shop: Option<&str>,
    key_hash: &[u8],
) -> Result<ApiKeyId, StoreError> {
    let id = ApiKeyId::new();
    query(INSERT_API_KEY).bind(id.0).bind(name).bind(scope).bind(shop).bind(key_hash).execute(conn).await?;
    Ok(id)
}

/// Finds the API key with this hash, unless it was revoked.
pub async fn find_api_key(conn: &mut PgConnection, key_hash: &[u8]) -> Result<Option<ApiKey>, StoreError> {
    Ok(query_as(FIND_API_KEY).bind(key_hash).fetch_optional(conn).await?)
}

/// Returns every API key, oldest first.
pub async fn list_api_keys(conn: &mut PgConnection) -> Result<Vec<ApiKeyRow>, StoreError> {
    Ok(query_as(LIST_API_KEYS).fetch_all(conn).await?)
}

/// Revokes an API key. Returns `false` if there is no valid key with this id.
pub async fn revoke_api_key(conn: &mut PgConnection, id: ApiKeyId) -> Result<bool, StoreError> {
    Ok(query(REVOKE_API_KEY).bind(id.0).execute(conn).await?.rows_affected() > 0)
}

/// Stores a driver's token by its hash.
pub async fn insert_token(conn: &mut PgConnection, driver: DriverId, token_hash: &[u8]) -> Result<TokenId, StoreError> {
    let id = TokenId::new();
    query(INSERT_TOKEN).bind(id.0).bind(driver.0).bind(token_hash).execute(conn).await?;
    Ok(id)
}

fn identity(row: Option<(Uuid, Uuid)>) -> Option<DriverIdentity> {
    row.map(|(token, driver)| DriverIdentity { driver_id: DriverId(driver), token_id: TokenId(token) })
}

/// Finds the driver of the token with this hash, unless the token was revoked or the driver was deactivated.
pub async fn find_token(conn: &mut PgConnection, token_hash: &[u8]) -> Result<Option<DriverIdentity>, StoreError> {
    Ok(identity(query_as(FIND_TOKEN).bind(token_hash).fetch_optional(conn).await?))
}

/// Returns the tokens of a driver before `before`, newest first.
pub async fn list_tokens(
    conn: &mut PgConnection,
    driver: DriverId,
    before: Option<TokenId>,
    limit: i64,
) -> Result<Vec<TokenRow>, StoreError> {
    let before = before.map(|id| id.0);
    Ok(query_as(LIST_TOKENS).bind(driver.0).bind(before).bind(limit).fetch_all(conn).await?)
}

/// Revokes a token. Returns `false` if the driver has no such token. A repeated call succeeds.
pub async fn revoke_token(conn: &mut PgConnection, driver: DriverId, token: TokenId) -> Result<bool, StoreError> {
    Ok(query(REVOKE_TOKEN).bind(token.0).bind(driver.0).execute(conn).await?.rows_affected() > 0)
}

/// Stores a one-use ticket by its hash, valid for `seconds`. Returns the time at which it expires. Deletes expired tickets.
pub async fn insert_ticket(
    conn: &mut PgConnection,
    token: TokenId,
    ticket_hash: &[u8],
    seconds: f64,
) -> Result<DateTime<Utc>, StoreError> {
    query(PRUNE_TICKETS).execute(&mut *conn).await?;
    Ok(query_scalar(INSERT_TICKET).bind(ticket_hash).bind(token.0).bind(seconds).fetch_one(conn).await?)
}

/// Deletes a ticket and returns its driver, if the ticket, its token and the driver are valid.
pub async fn use_ticket(conn: &mut PgConnection, ticket_hash: &[u8]) -> Result<Option<DriverIdentity>, StoreError> {
    Ok(identity(query_as(USE_TICKET).bind(ticket_hash).fetch_optional(conn).await?))
}
