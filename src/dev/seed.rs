//! What `dev` needs in the database: an admin key, the simulated drivers and one for the reader. Made once, kept.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::workspace::{Kept, KeptDriver};
use crate::cli::KeyScope;
use crate::commands::{CommandError, create_api_key};
use crate::domain::event::Actor;
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::store::drivers::NewDriver;
use crate::store::{Database, StoreError, credentials, drivers};

/// Why the database could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Draws the secrets that are not there yet.
pub fn fill_secrets(kept: &mut Kept) {
    let drawn = rand::random::<[u8; 32]>;
    let signing = || format!("whsec_{}", BASE64_STANDARD.encode(drawn()));
    if kept.webhook_secret.is_empty() {
        kept.webhook_secret = signing();
    }
    if kept.events_secret.is_empty() {
        kept.events_secret = signing();
    }
    if kept.webhook_shared_secret.is_empty() {
        kept.webhook_shared_secret = format!("dev_{}", BASE64_URL_SAFE_NO_PAD.encode(drawn()));
    }
}

/// Makes the key and the drivers that are not there yet, or that this database does not know (it may be another one).
pub async fn fill(kept: &mut Kept, database: &Database, fleet: usize) -> Result<(), SeedError> {
    let hash = SecretToken::presented(&kept.admin_key).hash();
    let known =
        database.transact(move |conn| Box::pin(async move { credentials::find_api_key(conn, &hash).await })).await?;
    if known.is_none() {
        kept.admin_key = create_api_key(database, "dev".to_owned(), KeyScope::Admin).await?;
    }
    if !is_known(database, kept.driver.as_ref()).await? {
        kept.driver = Some(new_driver(database, "Your driver".to_owned()).await?);
    }
    if !is_known(database, kept.fleet.first()).await? {
        kept.fleet.clear();
    }
    for number in kept.fleet.len()..fleet {
        kept.fleet.push(new_driver(database, format!("Simulated driver {}", number + 1)).await?);
    }
    Ok(())
}

async fn is_known(database: &Database, driver: Option<&KeptDriver>) -> Result<bool, StoreError> {
    let Some(driver) = driver else { return Ok(false) };
    let hash = SecretToken::presented(&driver.token).hash();
    let found =
        database.transact(move |conn| Box::pin(async move { credentials::find_token(conn, &hash).await })).await?;
    Ok(found.is_some())
}

async fn new_driver(database: &Database, name: String) -> Result<KeptDriver, StoreError> {
    let token = SecretToken::random(TokenKind::Driver);
    let hash = token.hash();
    let new = NewDriver { name, phone: "+0000000000".to_owned(), capacity: 1, external_id: None, metadata: None };
    let id = database
        .transact(move |conn| {
            Box::pin(async move {
                let driver = drivers::insert(conn, &new, &Actor::System).await?;
                credentials::insert_token(conn, driver.id, &hash).await?;
                Ok::<_, StoreError>(driver.id)
            })
        })
        .await?;
    Ok(KeptDriver { id: id.to_string(), token: token.expose().to_owned() })
}
