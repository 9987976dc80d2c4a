//! Stores the answers to requests with an `Idempotency-Key`.
//!
//! - An answer is written in the transaction of the request's work.
//! - An answer is kept for 24 hours.
//! - One request with a key runs at a time: an advisory lock ensures it.

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

/// Identifies a request by its caller, its route and its key.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// The id of the API key's row.
    pub owner: String,
    /// Method and path.
    pub route: String,
    /// The `Idempotency-Key` that the caller chose.
    pub key: String,
}

/// A stored answer.
#[derive(Debug, Clone, FromRow)]
pub struct SavedAnswer {
    /// SHA-256 of the bytes of the request's body.
    pub body_hash: Vec<u8>,
    /// SHA-256 of the content of the request's body. It is the same for every spelling. `None` in a row of an older program.
    pub content_hash: Option<Vec<u8>>,
    /// The HTTP status of the answer.
    pub status: i32,
    /// The `Location` header of the answer, if there was one.
    pub location: Option<String>,
    /// The body of the answer.
    pub response: Vec<u8>,
}

/// Locks the key until the transaction ends. Returns `false` if another request with the key is in progress.
pub async fn try_turn(conn: &mut PgConnection, key: &RequestKey) -> Result<bool, StoreError> {
    Ok(query_scalar(TRY_TURN).bind(&key.owner).bind(&key.route).bind(&key.key).fetch_one(conn).await?)
}

/// Finds the stored answer of a key.
pub async fn find(conn: &mut PgConnection, key: &RequestKey) -> Result<Option<SavedAnswer>, StoreError> {
    Ok(query_as(FIND).bind(&key.owner).bind(&key.route).bind(&key.key).fetch_optional(conn).await?)
}

/// Stores an answer.
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

/// Deletes answers that are older than 24 hours. Returns their number.
pub async fn prune(conn: &mut PgConnection) -> Result<u64, StoreError> {
    Ok(query(PRUNE).execute(conn).await?.rows_affected())
}
