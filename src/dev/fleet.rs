//! Creates drivers in bulk, each with a token: for the simulated fleet, and for the load tests (a file that k6 reads).

use std::path::{Path, PathBuf};

use super::workspace::{DriverCredentials, write_private_json};
use crate::domain::event::Actor;
use crate::domain::ids::DriverId;
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::store::drivers::NewDriver;
use crate::store::{Database, StoreError, credentials, drivers};

/// Drivers that one transaction creates. A transaction of this size stays well within the transaction timeout.
const AT_ONCE: usize = 200;

/// Why a fleet cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// PostgreSQL returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("{0} cannot be used: {1}")]
    File(PathBuf, #[source] std::io::Error),
}

/// Ensures that the file at `path` (mode 600) holds at least `count` drivers that exist in the database. The file is a JSON
/// array of `{"id", "token"}`. Drivers of an earlier run are reused.
pub async fn prepare(path: &Path, database: &Database, count: usize) -> Result<(), FleetError> {
    let kept = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Vec<DriverCredentials>>(&bytes).ok());
    let mut fleet = kept.unwrap_or_default();
    if !is_known(database, fleet.first()).await? {
        fleet.clear();
    }
    let names = (fleet.len()..count).map(|number| format!("Load driver {}", number + 1));
    fleet.extend(make(database, names.collect()).await?);
    write_private_json(path, &fleet).map_err(|error| FleetError::File(path.to_owned(), error))
}

/// Creates one driver for each name.
pub(super) async fn make(database: &Database, names: Vec<String>) -> Result<Vec<DriverCredentials>, StoreError> {
    let mut made = Vec::with_capacity(names.len());
    for names in names.chunks(AT_ONCE) {
        let wanted: Vec<(String, SecretToken)> =
            names.iter().map(|name| (name.clone(), SecretToken::random(TokenKind::Driver))).collect();
        made.extend(make_at_once(database, wanted).await?);
    }
    Ok(made)
}

async fn make_at_once(
    database: &Database,
    wanted: Vec<(String, SecretToken)>,
) -> Result<Vec<DriverCredentials>, StoreError> {
    let made: Vec<(DriverId, SecretToken)> = database
        .transact(move |conn| {
            Box::pin(async move {
                let mut made = Vec::with_capacity(wanted.len());
                for (name, token) in wanted {
                    let phone = "+0000000000".to_owned();
                    let new = NewDriver { name, phone, capacity: 1, external_id: None, metadata: None };
                    let driver = drivers::insert(conn, &new, &Actor::System).await?;
                    credentials::insert_token(conn, driver.id, &token.hash()).await?;
                    made.push((driver.id, token));
                }
                Ok::<_, StoreError>(made)
            })
        })
        .await?;
    let kept = |(id, token): (DriverId, SecretToken)| DriverCredentials {
        id: id.to_string(),
        token: token.expose().to_owned(),
    };
    Ok(made.into_iter().map(kept).collect())
}

/// Returns whether the driver's token exists in this database. The last run may have used another database.
pub(super) async fn is_known(database: &Database, driver: Option<&DriverCredentials>) -> Result<bool, StoreError> {
    let Some(driver) = driver else { return Ok(false) };
    let hash = SecretToken::presented(&driver.token).hash();
    let found =
        database.transact(move |conn| Box::pin(async move { credentials::find_token(conn, &hash).await })).await?;
    Ok(found.is_some())
}
