//! `ShopDirectory`: every shop as requests and posts need it, in memory: its secrets, its limit, where its events go.
//!
//! The shop `vendure` is as the configuration makes it. Others stand in PostgreSQL, and each node reads their changes within a
//! second. While PostgreSQL is out, the shops last read stay.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use crate::config::Config;
use crate::domain::ids::ShopName;
use crate::store::shops::{self, SecretRow, ShopRow};
use crate::store::{Database, StoreError};
use crate::webhooks::shop_keys::{Direction, ShopKeys};
use crate::webhooks::signature::{InboundCredentials, SecretError, SharedSecret, SigningSecret};

/// Shops that are read; nobody has so many.
const MOST_SHOPS: i64 = 100_000;

/// A shop.
#[derive(Debug, Default)]
pub struct Shop {
    /// What its requests are judged by.
    pub credentials: InboundCredentials,
    /// Its own limit of orders a second; 0: none.
    pub orders_per_second: Option<u32>,
    /// Where its events go, if anywhere.
    pub endpoint: Option<Endpoint>,
}

/// Where a shop's events go, and how they are signed.
#[derive(Debug)]
pub struct Endpoint {
    /// The shop's address.
    pub url: Url,
    /// As PostgreSQL has it; `None` for the configured shop.
    pub stored_url: Option<String>,
    /// One signature each.
    pub secrets: Vec<SigningSecret>,
    /// Sent as it is, where configured.
    pub shared: Option<SharedSecret>,
}

/// All shops, as they were last read.
struct Known {
    version: Option<(i64, i64)>,
    shops: HashMap<String, Arc<Shop>>,
}

/// See the module.
pub struct ShopDirectory {
    keys: ShopKeys,
    configured: Arc<Shop>,
    known: ArcSwap<Known>,
    /// Held while the shops are read, so that what was read first is not taken for the last word.
    turn: Mutex<()>,
}

impl ShopDirectory {
    /// The configured shop alone.
    pub fn new(config: &Config) -> Result<Self, SecretError> {
        let configured = Arc::new(configured(config)?);
        let shops = HashMap::from([(ShopName::vendure().as_str().to_owned(), configured.clone())]);
        let keys = ShopKeys::new(config.shop_secrets_keys.iter().map(|key| key.expose().as_str()));
        Ok(Self {
            keys,
            configured,
            known: ArcSwap::from_pointee(Known { version: None, shops }),
            turn: Mutex::default(),
        })
    }

    /// One shop that comes in by these credentials.
    #[cfg(test)]
    pub fn of_one(name: &str, credentials: InboundCredentials) -> Self {
        let configured = Arc::new(Shop { credentials, ..Shop::default() });
        let shops = HashMap::from([(name.to_owned(), configured.clone())]);
        let known = ArcSwap::from_pointee(Known { version: None, shops });
        Self { keys: ShopKeys::default(), configured, known, turn: Mutex::default() }
    }

    /// What shops' secrets are derived from.
    pub fn keys(&self) -> &ShopKeys {
        &self.keys
    }

    /// A shop, by its name.
    pub fn find(&self, shop: &str) -> Option<Arc<Shop>> {
        self.known.load().shops.get(shop).cloned()
    }

    /// Those that events can be posted to.
    pub fn with_endpoints(&self) -> Vec<(String, Arc<Shop>)> {
        let known = self.known.load();
        let posted = known.shops.iter().filter(|(_, shop)| shop.endpoint.is_some());
        posted.map(|(name, shop)| (name.clone(), shop.clone())).collect()
    }

    /// Reads the shops again when something about them has changed.
    pub async fn refresh(&self, database: &Database) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let version = self.known.load().version;
        let read = database.transact(move |conn| {
            Box::pin(async move {
                let now = shops::version(conn).await?;
                if Some(now) == version {
                    return Ok::<_, StoreError>(None);
                }
                let rows = shops::list(conn, None, None, MOST_SHOPS).await?;
                Ok(Some((now, rows, shops::secrets(conn, None).await?)))
            })
        });
        let Some((version, rows, secrets)) = read.await? else { return Ok(()) };
        let shops = self.assemble(rows, &secrets);
        self.known.store(Arc::new(Known { version: Some(version), shops }));
        Ok(())
    }

    fn assemble(&self, rows: Vec<ShopRow>, secrets: &[SecretRow]) -> HashMap<String, Arc<Shop>> {
        let mut derived = self.derive_all(secrets);
        let mut all = |shop: &str, direction| derived.remove(&(shop.to_owned(), direction)).unwrap_or_default();
        let shop = |row: ShopRow| {
            let secrets = all(&row.name, Direction::Events);
            let url = row.url.as_deref().and_then(|url| Url::parse(url).ok());
            let endpoint = url.filter(|_| !secrets.is_empty()).map(|url| Endpoint {
                url,
                stored_url: row.url.clone(),
                secrets,
                shared: None,
            });
            let credentials = InboundCredentials { signing: all(&row.name, Direction::Orders), shared: None };
            let orders_per_second = row.orders_per_second.and_then(|limit| u32::try_from(limit).ok());
            (row.name, Arc::new(Shop { credentials, orders_per_second, endpoint }))
        };
        let mut shops: HashMap<String, Arc<Shop>> = rows.into_iter().map(shop).collect();
        shops.insert(ShopName::vendure().as_str().to_owned(), self.configured.clone());
        shops
    }

    /// The secrets of each shop and direction, the newest first.
    fn derive_all(&self, secrets: &[SecretRow]) -> HashMap<(String, Direction), Vec<SigningSecret>> {
        let mut derived: HashMap<_, Vec<SigningSecret>> = HashMap::new();
        let mut lost = BTreeMap::<&str, Vec<Uuid>>::new();
        for secret in secrets {
            let Some(direction) = Direction::parse(&secret.direction) else { continue };
            match self.keys.derive(&secret.fingerprint, &secret.shop, direction, secret.id) {
                Some(text) => derived.entry((secret.shop.clone(), direction)).or_default().push(text),
                None => lost.entry(&secret.shop).or_default().push(secret.id),
            }
        }
        for (shop, ids) in lost {
            tracing::warn!(
                shop, secrets = ?ids,
                "secrets of this shop come from a key that SHOP_SECRETS_KEY of this node does not hold, and are of no use here"
            );
        }
        derived
    }
}

/// The shop `vendure`.
fn configured(config: &Config) -> Result<Shop, SecretError> {
    type Signing = Result<Vec<SigningSecret>, SecretError>;
    let (webhook, events) = (&config.webhook, &config.events);
    let signing: Signing = webhook.secrets.iter().map(|secret| secret.expose().parse()).collect();
    let shared = webhook.shared.as_ref().map(|secret| secret.expose().parse()).transpose()?;
    let credentials = InboundCredentials { signing: signing?, shared };
    let secrets: Signing = events.secrets.iter().map(|secret| secret.expose().parse()).collect();
    let (secrets, shared) = (secrets?, events.shared.as_ref().map(|secret| secret.expose().parse()).transpose()?);
    let endpoint =
        events.url.as_ref().map(|url| Endpoint { url: url.expose().clone(), stored_url: None, secrets, shared });
    Ok(Shop { credentials, orders_per_second: None, endpoint })
}
