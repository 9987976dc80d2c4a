//! Creates what `dev` needs in the database: an admin key, the simulated drivers and one driver for the reader.
//!
//! Invariant: a later run reuses what the database already holds.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::fleet;
use super::workspace::SavedState;
use crate::cli::KeyScope;
use crate::commands::{CommandError, create_api_key};
use crate::domain::secret_token::SecretToken;
use crate::store::{Database, StoreError, credentials};

/// Why the database cannot be seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// PostgreSQL returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API key could not be created.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Generates the secrets that are still missing.
pub fn fill_secrets(state: &mut SavedState) {
    let drawn = rand::random::<[u8; 32]>;
    let signing = || format!("whsec_{}", BASE64_STANDARD.encode(drawn()));
    if state.webhook_secret.is_empty() {
        state.webhook_secret = signing();
    }
    if state.events_secret.is_empty() {
        state.events_secret = signing();
    }
    if state.shop_secrets_key.is_empty() {
        state.shop_secrets_key = BASE64_STANDARD.encode(drawn());
    }
    if state.webhook_shared_secret.is_empty() {
        state.webhook_shared_secret = format!("dev_{}", BASE64_URL_SAFE_NO_PAD.encode(drawn()));
    }
}

/// Creates the key and the drivers that are missing, or that this database does not hold. The last run may have used another
/// database.
pub async fn fill(state: &mut SavedState, database: &Database, drivers: usize) -> Result<(), SeedError> {
    let hash = SecretToken::presented(&state.admin_key).hash();
    let known =
        database.transact(move |conn| Box::pin(async move { credentials::find_api_key(conn, &hash).await })).await?;
    if known.is_none() {
        state.admin_key = create_api_key(database, "dev".to_owned(), KeyScope::Admin).await?;
    }
    if !fleet::is_known(database, state.driver.as_ref()).await? {
        state.driver = fleet::make(database, vec!["Your driver".to_owned()]).await?.pop();
    }
    if !fleet::is_known(database, state.fleet.first()).await? {
        state.fleet.clear();
    }
    let names = (state.fleet.len()..drivers).map(|number| format!("Simulated driver {}", number + 1));
    state.fleet.extend(fleet::make(database, names.collect()).await?);
    Ok(())
}
