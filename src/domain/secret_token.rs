//! A secret that is shown once and stored only as its SHA-256: API keys, drivers' tokens, tickets.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// What a token is for; its text begins with it, so that a leaked one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An operator's or a shop's key.
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

    /// Whether a text can be such a token at all: what cannot needs no looking up.
    pub fn fits(self, text: &str) -> bool {
        text.starts_with(self.prefix())
    }
}

/// A token of 256 random bits, base64url behind a prefix that names its purpose. Debug does not show it.
pub struct SecretToken(String);

impl SecretToken {
    /// A new one.
    pub fn random(kind: TokenKind) -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(format!("{}{}", kind.prefix(), BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// As somebody presents it.
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The token itself, to be shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored and looked up: 32 bytes.
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
