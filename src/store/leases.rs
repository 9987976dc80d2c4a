//! Leases for work that one node does at a time. Each kind of work has one row, which a node holds for some time and renews.
//!
//! - A lease avoids that several nodes do the same work.
//! - A lease must not be needed for correctness. A node that stalls may continue for a moment after another node has acquired
//!   the lease.

use sqlx::PgConnection;

use super::StoreError;
use super::statement::{query, query_scalar};

statements! {
    ACQUIRE = "INSERT INTO leases AS l (name, holder, expires_at)
        VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3::double precision))
        ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, expires_at = EXCLUDED.expires_at
        WHERE l.holder = EXCLUDED.holder OR l.expires_at < clock_timestamp()
        RETURNING true";
    RELEASE = "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND holder = $2";
}

/// Acquires or renews a lease for `seconds`. Returns `false` while another holder has it.
pub async fn acquire(conn: &mut PgConnection, name: &str, holder: &str, seconds: f64) -> Result<bool, StoreError> {
    let held: Option<bool> = query_scalar(ACQUIRE).bind(name).bind(holder).bind(seconds).fetch_optional(conn).await?;
    Ok(held.is_some())
}

/// Releases a lease before it expires, if `holder` has it.
pub async fn release(conn: &mut PgConnection, name: &str, holder: &str) -> Result<(), StoreError> {
    query(RELEASE).bind(name).bind(holder).execute(conn).await?;
    Ok(())
}
