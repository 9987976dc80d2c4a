//! Secrets of shops, derived and never stored: `HMAC-SHA256(key of the configuration, shop, direction, id)`.
//!
//! A reader of the database learns none. A key is named by its fingerprint, so that another can take its place: new
//! secrets come from the first key, old ones from the key that they came from for as long as it is configured.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::signature::SigningSecret;

/// What the hash is made over begins with this, so that the key may serve nothing else by accident.
const PURPOSE: &[u8] = b"driver-tracker shop secret 1";
/// Hexadecimal digits of a fingerprint.
const FINGERPRINT_DIGITS: usize = 16;

/// Which way a secret works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The shop signs its orders with it.
    Orders,
    /// We sign our events with it.
    Events,
}

impl Direction {
    /// Its name on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Events => "events",
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Orders, Self::Events].into_iter().find(|direction| direction.as_str() == text)
    }
}

/// The keys of the configuration that secrets are derived from; none: shops cannot be made.
#[derive(Clone, Default)]
pub struct ShopKeys {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    bytes: Vec<u8>,
    fingerprint: String,
}

impl ShopKeys {
    /// From keys of at least 32 bytes, in base64; the first is that of new secrets. What is no base64 is left out: the
    /// configuration has looked.
    pub fn new<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let key = |text: &str| {
            let bytes = BASE64.decode(text).ok()?;
            let mut fingerprint = hex(&Sha256::digest(Sha256::digest(&bytes)));
            fingerprint.truncate(FINGERPRINT_DIGITS);
            Some(Key { bytes, fingerprint })
        };
        Self { keys: keys.filter_map(key).collect() }
    }

    /// The fingerprint of the key that new secrets are derived from.
    pub fn current(&self) -> Option<&str> {
        self.keys.first().map(|key| key.fingerprint.as_str())
    }

    /// The secret of a row; `None` when its key is not configured any more.
    pub fn derive(&self, fingerprint: &str, shop: &str, direction: Direction, id: Uuid) -> Option<SigningSecret> {
        let key = self.keys.iter().find(|key| key.fingerprint == fingerprint)?;
        #[allow(clippy::expect_used)]
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key.bytes).expect("HMAC takes keys of any length");
        // No part holds the byte that parts them: names and directions are ASCII, and the id has a fixed length.
        for part in [PURPOSE, shop.as_bytes(), direction.as_str().as_bytes(), id.as_bytes()] {
            mac.update(part);
            mac.update(&[0]);
        }
        Some(SigningSecret::from_key(mac.finalize().into_bytes().to_vec()))
    }
}

impl fmt::Debug for ShopKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShopKeys({} redacted)", self.keys.len())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seeds: &[u8]) -> ShopKeys {
        let texts: Vec<String> = seeds.iter().map(|seed| BASE64.encode([*seed; 32])).collect();
        ShopKeys::new(texts.iter().map(String::as_str))
    }

    fn secret(keys: &ShopKeys, by: &str, shop: &str, direction: Direction, id: u128) -> Option<String> {
        keys.derive(by, shop, direction, Uuid::from_u128(id)).map(|secret| secret.expose())
    }

    #[test]
    fn a_secret_is_its_rows_own_and_comes_again() {
        let one = keys(&[1]);
        let by = one.current().unwrap().to_owned();
        let derived = |shop, direction, id| secret(&one, &by, shop, direction, id).unwrap();
        let first = derived("a", Direction::Orders, 1);
        assert_eq!(first, derived("a", Direction::Orders, 1));
        assert!(first.parse::<SigningSecret>().is_ok());
        let others = [
            derived("b", Direction::Orders, 1),
            derived("a", Direction::Events, 1),
            derived("a", Direction::Orders, 2),
        ];
        assert!(!others.contains(&first));
        assert_ne!(others[0], others[1]);
    }

    #[test]
    fn a_key_that_takes_anothers_place_leaves_the_old_secrets_good() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let by = old.current().unwrap().to_owned();
        assert_eq!(secret(&both, &by, "a", Direction::Orders, 1), secret(&old, &by, "a", Direction::Orders, 1));
        assert_ne!(both.current(), old.current());
        assert_eq!(both.current(), new.current());
        assert_eq!(secret(&new, &by, "a", Direction::Orders, 1), None);
        assert_eq!(keys(&[]).current(), None);
    }

    #[test]
    fn nothing_of_a_key_shows() {
        assert_eq!(format!("{:?}", keys(&[7])), "ShopKeys(1 redacted)");
    }
}
