//! Secret tokens: API keys, drivers' bearer tokens, WebSocket tickets.
//!
//! - A token is shown once. Only its SHA-256 hash is stored.
//! - `Debug` never shows a token.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The purpose of a token. The text of a token begins with a prefix for it, so that a leaked token is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// The API key of an operator or a shop.
    ApiKey,
    /// A driver's bearer token.
    Driver,
    /// A one-use ticket for a WebSocket.
    Ticket,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "dt_key_",
            Self::Driver => "dt_drv_",
            Self::Ticket => "dt_tkt_",
        }
    }

    /// Whether a text can be a token of this kind. The caller needs no lookup for a text that cannot.
    pub fn fits(self, text: &str) -> bool {
        text.starts_with(self.prefix())
    }
}

/// A token of 256 random bits: a prefix for its purpose, followed by base64url.
pub struct SecretToken(String);

impl SecretToken {
    /// Creates a new token.
    pub fn random(kind: TokenKind) -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(format!("{}{}", kind.prefix(), BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Wraps the text that a caller presented.
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text of the token, to be shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hash that is stored and looked up: 32 bytes.
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0.as_bytes()).to_vec()
    }
}

impl std::fmt::Debug for SecretToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_found_by_their_hash() {
        for (kind, prefix) in
            [(TokenKind::ApiKey, "dt_key_"), (TokenKind::Driver, "dt_drv_"), (TokenKind::Ticket, "dt_tkt_")]
        {
            let (one, other) = (SecretToken::random(kind), SecretToken::random(kind));
            assert_ne!(one.expose(), other.expose());
            assert_eq!(one.hash(), SecretToken::presented(one.expose()).hash());
            assert!(one.expose().starts_with(prefix) && one.expose().len() == 7 + 43);
            assert!(kind.fits(one.expose()) && !kind.fits("guess"));
            assert_eq!(format!("{one:?}"), "[redacted]");
        }
    }
}
