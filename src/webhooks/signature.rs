//! Who may post, and proof of who posts: Standard Webhooks 1.0 (<https://www.standardwebhooks.com>) and a plain shared secret.
//!
//! Invariants: comparisons take the same time wherever two texts differ; a request that carries `webhook-signature` is
//! judged by it alone; what is asked of an unknown shop costs what a wrong secret costs, and is always refused. Secrets
//! never appear in `Debug` or in an error.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use base64::Engine;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::domain::webhook_secret::{self, BASE64, KEY_BYTES, PREFIX};

pub use crate::domain::webhook_secret::SecretError;

/// How far a signed request's time may be from ours, in seconds, either way.
pub const TOLERANCE_S: i64 = 300;

/// Signatures beyond this many in one header are not looked at.
const MAX_SIGNATURES: usize = 32;

const SIGNATURE_PREFIX: &str = "v1,";

/// A key that signs and verifies, written `whsec_` and base64.
#[derive(Clone)]
pub struct SigningSecret {
    key: Vec<u8>,
}

impl SigningSecret {
    /// Reads several secrets separated by commas, as they are while one takes the place of another.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SecretError> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }

    /// From its bytes, of which there are 24 to 64.
    pub fn from_key(key: Vec<u8>) -> Self {
        debug_assert!(KEY_BYTES.contains(&key.len()));
        Self { key }
    }

    /// The secret's text, for the one answer that shows it. Never log it.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.key))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
        hmac(&self.key, id, timestamp, body)
    }
}

impl FromStr for SigningSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        webhook_secret::signing_key(text).map(Self::from_key)
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(redacted)")
    }
}

/// A secret that travels as it is in `X-Webhook-Secret`, for those that cannot sign.
#[derive(Clone)]
pub struct SharedSecret(String);

impl SharedSecret {
    /// The secret itself, for the header. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for SharedSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        webhook_secret::check_shared(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(redacted)")
    }
}

/// The headers by which a request is judged, as they came; `None` where one is absent.
#[derive(Clone, Copy, Default)]
pub struct InboundHeaders<'a> {
    /// `webhook-id`
    pub webhook_id: Option<&'a str>,
    /// `webhook-timestamp`: seconds since 1970.
    pub webhook_timestamp: Option<&'a str>,
    /// `webhook-signature`: its presence decides that the request is judged by signature. One that is not visible ASCII
    /// must still be passed as present, for example as an empty text.
    pub webhook_signature: Option<&'a str>,
    /// `x-webhook-secret`
    pub shared_secret: Option<&'a str>,
}

/// Why a request's credentials were refused. For logs and metrics; the caller answers each alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialRefusal {
    /// No signature and no secret, or a signature without its id or time.
    #[error("credentials are missing")]
    Missing,
    /// Headers that cannot be read.
    #[error("the signature headers cannot be read")]
    Malformed,
    /// Signed too long ago, or too far in the future.
    #[error("the signature's time is more than {TOLERANCE_S} s from ours")]
    Stale,
    /// None of the signatures, or the secret, is right.
    #[error("the signature or secret does not match")]
    Mismatch,
}

/// What a shop's requests are judged by.
#[derive(Clone, Debug, Default)]
pub struct InboundCredentials {
    /// Every key that is good now: more than one while one takes the place of another.
    pub signing: Vec<SigningSecret>,
    /// The plain secret, where one is configured.
    pub shared: Option<SharedSecret>,
}

impl InboundCredentials {
    /// True when nothing could ever be accepted.
    pub fn is_empty(&self) -> bool {
        self.signing.is_empty() && self.shared.is_none()
    }

    /// Judges a request by its signature if it carries one, else by its shared secret.
    pub fn verify(
        &self,
        headers: &InboundHeaders<'_>,
        raw_body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), CredentialRefusal> {
        let matches = match (headers.webhook_signature, headers.shared_secret) {
            (Some(signature), _) => self.signature_matches(headers, signature, raw_body, now)?,
            (None, Some(secret)) => self.shared_matches(secret),
            (None, None) => return Err(CredentialRefusal::Missing),
        };
        if bool::from(matches) { Ok(()) } else { Err(CredentialRefusal::Mismatch) }
    }

    fn signature_matches(
        &self,
        headers: &InboundHeaders<'_>,
        signature: &str,
        raw_body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Choice, CredentialRefusal> {
        let (Some(id), Some(timestamp)) = (headers.webhook_id, headers.webhook_timestamp) else {
            return Err(CredentialRefusal::Missing);
        };
        if id.is_empty() {
            return Err(CredentialRefusal::Malformed);
        }
        let given = decode_signatures(signature);
        let signed_at = parse_timestamp(timestamp).ok_or(CredentialRefusal::Malformed)?;
        if given.is_empty() {
            return Err(CredentialRefusal::Malformed);
        }
        if signed_at.abs_diff(now.timestamp()) > TOLERANCE_S.unsigned_abs() {
            return Err(CredentialRefusal::Stale);
        }
        if self.signing.is_empty() {
            // A shop that never signs takes as long as one that does.
            let _ = hmac(&[0; 32], id, timestamp, raw_body);
        }
        let mut matches = Choice::from(0);
        for secret in &self.signing {
            let expected = secret.mac(id, timestamp, raw_body);
            for signature in &given {
                matches |= expected.ct_eq(signature);
            }
        }
        Ok(matches)
    }

    /// Compares digests, so that neither content nor length shows in the time.
    fn shared_matches(&self, given: &str) -> Choice {
        let expected = self.shared.as_ref().map_or("", SharedSecret::expose);
        let same = Sha256::digest(expected).ct_eq(&Sha256::digest(given));
        same & Choice::from(u8::from(self.shared.is_some()))
    }
}

/// Judges a request to a shop that does not exist: the same work as for one that does, and always a refusal.
pub fn verify_unknown_shop(headers: &InboundHeaders<'_>, raw_body: &[u8], now: DateTime<Utc>) -> CredentialRefusal {
    static DECOY: LazyLock<InboundCredentials> = LazyLock::new(|| InboundCredentials {
        signing: vec![SigningSecret { key: vec![0; 32] }],
        shared: Some(SharedSecret("decoy".to_owned())),
    });
    // The decoy's secrets are no secret: a match is a mismatch too.
    DECOY.verify(headers, raw_body, now).err().unwrap_or(CredentialRefusal::Mismatch)
}

/// The value of `webhook-signature`: one signature per secret, separated by spaces. `timestamp` is in seconds.
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let signature =
        |secret: &SigningSecret| format!("{SIGNATURE_PREFIX}{}", BASE64.encode(secret.mac(id, &timestamp, body)));
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

/// HMAC-SHA256 of `id.timestamp.body`.
fn hmac(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    #[allow(clippy::expect_used)]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The `v1` signatures of a header; what is of another version or cannot be decoded is passed over.
fn decode_signatures(header: &str) -> Vec<[u8; 32]> {
    let encoded = header.split(' ').filter_map(|part| part.strip_prefix(SIGNATURE_PREFIX)).take(MAX_SIGNATURES);
    encoded.filter_map(|text| BASE64.decode(text).ok()?.try_into().ok()).collect()
}

/// Digits only: what is signed is this very text, so that it has one spelling.
fn parse_timestamp(text: &str) -> Option<i64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
