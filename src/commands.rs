//! Runs the commands that start no service: `migrate`, `api-key`, `events` and `doctor`.
//!
//! Invariants: a command works directly on the stores and needs no running service.
//!
//! Must not: parse arguments, which `cli` does.

mod diagnosis;
pub mod doctor;
pub mod events;

use crate::cli::{ApiKeyCommand, KeyScope};
use crate::config::MaintenanceConfig;
use crate::domain::ids::{EventId, ShopName};
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::store::schema::MigrationError;
use crate::store::{Database, StoreError, credentials, schema, shops};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// PostgreSQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] MigrationError),
    /// The shop does not exist.
    #[error("there is no shop {0:?}: start the service once, or name a shop that exists")]
    NoSuchShop(String),
    /// The key does not exist, or is revoked.
    #[error("there is no valid key with this id")]
    NoSuchKey,
    /// The event does not exist.
    #[error("there is no event {0}")]
    NoSuchEvent(EventId),
}

/// Applies the missing migrations.
pub async fn migrate(config: MaintenanceConfig) -> Result<(), CommandError> {
    schema::migrate(config.database.url.expose()).await?;
    tracing::info!(version = schema::newest_known(), "the database is up to date");
    Ok(())
}

/// Creates, lists or revokes API keys. `create` prints only the key on standard output.
pub async fn api_key(command: ApiKeyCommand, config: MaintenanceConfig) -> Result<(), CommandError> {
    let url = config.database.url.expose();
    let database = Database::new(url, 1, false, tokio::runtime::Handle::current())?;
    match command {
        ApiKeyCommand::Create { name, scope } => println!("{}", create_api_key(&database, name, scope).await?),
        ApiKeyCommand::List => {
            let keys =
                database.transact(|conn| Box::pin(async move { credentials::list_api_keys(conn).await })).await?;
            for key in keys {
                let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
                let shop = key.shop.unwrap_or_default();
                println!("{}\t{}\t{}\t{}\t{}\t{}", key.id, key.name, key.scope, shop, state, key.created_at);
            }
        }
        ApiKeyCommand::Revoke(id) => {
            let done = database
                .transact(move |conn| Box::pin(async move { credentials::revoke_api_key(conn, id).await }))
                .await?;
            if !done {
                return Err(CommandError::NoSuchKey);
            }
        }
    }
    Ok(())
}

/// Creates an API key and returns it. Only its hash is stored, so the key cannot be shown again.
pub async fn create_api_key(database: &Database, name: String, scope: KeyScope) -> Result<String, CommandError> {
    let token = SecretToken::random(TokenKind::ApiKey);
    let hash = token.hash();
    database
        .transact(move |conn| {
            Box::pin(async move {
                let shop = match &scope {
                    KeyScope::Shop(shop) => Some(shop.clone()),
                    _ => None,
                };
                if let Some(shop) = &shop {
                    if *shop == ShopName::vendure() {
                        shops::ensure(conn, shop).await?;
                    } else if !shops::exists(conn, shop).await? {
                        return Err(CommandError::NoSuchShop(shop.to_string()));
                    }
                }
                let shop = shop.as_ref().map(ShopName::as_str);
                credentials::insert_api_key(conn, &name, scope.as_str(), shop, &hash).await?;
                Ok(())
            })
        })
        .await?;
    Ok(token.expose().to_owned())
}
