//! Drivers made in bulk, each with a token: the simulated fleet, and those of the load tests in a file for k6.

use std::path::{Path, PathBuf};

use super::workspace::{KeptDriver, write_private_json};
use crate::domain::event::Actor;
use crate::domain::ids::DriverId;
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::store::drivers::NewDriver;
use crate::store::{Database, StoreError, credentials, drivers};

/// Drivers made in one transaction; well within what one transaction may take.
const AT_ONCE: usize = 200;

/// Why a fleet could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error("{0} cannot be used: {1}")]
    File(PathBuf, #[source] std::io::Error),
}

/// Makes sure that the file at `path` (mode 600) holds at least `count` drivers that the database knows, as a JSON array
/// of `{"id", "token"}`. Those of an earlier run are used again.
pub async fn prepare(path: &Path, database: &Database, count: usize) -> Result<(), FleetError> {
    let kept = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Vec<KeptDriver>>(&bytes).ok());
    let mut fleet = kept.unwrap_or_default();
    if !is_known(database, fleet.first()).await? {
        fleet.clear();
    }
    let names = (fleet.len()..count).map(|number| format!("Load driver {}", number + 1));
    fleet.extend(make(database, names.collect()).await?);
    write_private_json(path, &fleet).map_err(|error| FleetError::File(path.to_owned(), error))
}

/// Makes a driver of each name.
pub(super) async fn make(database: &Database, names: Vec<String>) -> Result<Vec<KeptDriver>, StoreError> {
    let mut made = Vec::with_capacity(names.len());
    for names in names.chunks(AT_ONCE) {
        let wanted: Vec<(String, SecretToken)> =
            names.iter().map(|name| (name.clone(), SecretToken::random(TokenKind::Driver))).collect();
        made.extend(make_at_once(database, wanted).await?);
    }
    Ok(made)
}

async fn make_at_once(database: &Database, wanted: Vec<(String, SecretToken)>) -> Result<Vec<KeptDriver>, StoreError> {
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
    let kept =
        |(id, token): (DriverId, SecretToken)| KeptDriver { id: id.to_string(), token: token.expose().to_owned() };
    Ok(made.into_iter().map(kept).collect())
}

/// Whether this database knows the driver's token; it may be another one than that of the last run.
pub(super) async fn is_known(database: &Database, driver: Option<&KeptDriver>) -> Result<bool, StoreError> {
    let Some(driver) = driver else { return Ok(false) };
    let hash = SecretToken::presented(&driver.token).hash();
    let found =
        database.transact(move |conn| Box::pin(async move { credentials::find_token(conn, &hash).await })).await?;
    Ok(found.is_some())
}
