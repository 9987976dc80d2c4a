//! The form of webhook secrets: one rule for the configuration and for the code that signs and verifies.
//!
//! Errors never repeat the text of a secret.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// The prefix of a signing secret.
pub const PREFIX: &str = "whsec_";
/// How many bytes a signing key has.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const MAX_SHARED_CHARS: usize = 1_024;

/// Standard base64 that takes missing padding, which some senders leave off.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no secret. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No `whsec_` before it.
    #[error("a signing secret starts with whsec_")]
    Prefix,
    /// Not base64.
    #[error("a signing secret is whsec_ and then base64, which this one is not")]
    Base64,
    /// Too short to be safe, or longer than the standard allows.
    #[error("a signing secret is whsec_ and the base64 of 24 to 64 bytes; this one holds {0} bytes")]
    Length(usize),
    /// Nothing between two commas, or nothing at all.
    #[error("a secret is empty")]
    Empty,
    /// Longer than a header should be.
    #[error("a shared secret has at most {MAX_SHARED_CHARS} characters")]
    SharedTooLong,
    /// Something that a header cannot carry unchanged.
    #[error("a shared secret holds only visible ASCII characters, no spaces")]
    SharedCharacters,
}

/// The key of a signing secret of Standard Webhooks 1.0: `whsec_` and base64 of 24 to 64 bytes.
pub fn signing_key(text: &str) -> Result<Vec<u8>, SecretError> {
    if text.is_empty() {
        return Err(SecretError::Empty);
    }
    let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
    let key = BASE64.decode(encoded).map_err(|_| SecretError::Base64)?;
    if KEY_BYTES.contains(&key.len()) { Ok(key) } else { Err(SecretError::Length(key.len())) }
}

/// Checks a secret that is sent in a header as it is.
pub fn check_shared(text: &str) -> Result<(), SecretError> {
    if text.is_empty() {
        Err(SecretError::Empty)
    } else if text.len() > MAX_SHARED_CHARS {
        Err(SecretError::SharedTooLong)
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err(SecretError::SharedCharacters)
    } else {
        Ok(())
    }
}
