//! Answers to requests that carried an `Idempotency-Key`, kept for a day, written in the transaction of the work itself.

use sqlx::{FromRow, PgConnection};

use super::StoreError;
use super::statement::{query, query_as, query_scalar};

statements! {
    TRY_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended($1 || ' ' || $2 || ' ' || $3, 1))";
    FIND = "SELECT body_hash, content_hash, status, location, response FROM idempotency_keys
        WHERE owner = $1 AND route = $2 AND key = $3 AND created_at > clock_timestamp() - interval '24 hours'";
    SAVE = "INSERT INTO idempotency_keys (owner, route, key, body_hash, status, location, response, content_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT ON CONSTRAINT idempotency_keys_once DO UPDATE SET body_hash = EXCLUDED.body_hash,
            status = EXCLUDED.status, location = EXCLUDED.location, response = EXCLUDED.response,
            content_hash = EXCLUDED.content_hash, created_at = clock_timestamp()";
    PRUNE = "DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '24 hours'";
}

/// Which request: whose, to which route, under which key.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// The API key's row.
    pub owner: String,
    /// Method and path.
    pub route: String,
    /// What the caller chose.
    pub key: String,
}

/// An answer that was given.
#[derive(Debug, Clone, FromRow)]
pub struct SavedAnswer {
    /// SHA-256 of the request's body, byte for byte.
    pub body_hash: Vec<u8>,
    /// SHA-256 of what the body says, however it is written; `None` in what an older program kept.
    pub content_hash: Option<Vec<u8>>,
    /// HTTP status.
    pub status: i32,
    /// `Location`, where there was one.
    pub location: Option<String>,
    /// The body.
    pub response: Vec<u8>,
}

/// Takes the key's turn until the transaction ends; `false` when a request with it is still under way.
pub async fn try_turn(conn: &mut PgConnection, key: &RequestKey) -> Result<bool, StoreError> {
    Ok(query_scalar(TRY_TURN).bind(&key.owner).bind(&key.route).bind(&key.key).fetch_one(conn).await?)
}

/// The answer that was given under this key.
pub async fn find(conn: &mut PgConnection, key: &RequestKey) -> Result<Option<SavedAnswer>, StoreError> {
    Ok(query_as(FIND).bind(&key.owner).bind(&key.route).bind(&key.key).fetch_optional(conn).await?)
}

/// Keeps an answer.
pub async fn save(conn: &mut PgConnection, key: &RequestKey, answer: &SavedAnswer) -> Result<(), StoreError> {
    query(SAVE)
        .bind(&key.owner)
        .bind(&key.route)
        .bind(&key.key)
        .bind(&answer.body_hash)
        .bind(answer.status)
        .bind(&answer.location)
        .bind(&answer.response)
        .bind(&answer.content_hash)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets answers older than a day.
pub async fn prune(conn: &mut PgConnection) -> Result<u64, StoreError> {
    Ok(query(PRUNE).execute(conn).await?.rows_affected())
}
