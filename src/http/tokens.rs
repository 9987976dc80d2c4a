//! Secrets that the service gives out: 256 random bits, shown once, stored as SHA-256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// What a secret is for; its text begins with it, so that a leaked one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A driver's bearer token.
    Driver,
    /// An API key.
    ApiKey,
    /// A one-use ticket for a WebSocket.
    Ticket,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Driver => "dt_drv_",
            Self::ApiKey => "dt_key_",
            Self::Ticket => "dt_tkt_",
        }
    }
}

/// A secret that was just made. Has no `Debug`: it must not reach a log.
pub struct NewToken {
    /// What the holder is shown, once.
    pub text: String,
    /// What is stored.
    pub hash: [u8; 32],
}

/// Makes a secret.
pub fn make(kind: TokenKind) -> NewToken {
    let bits: [u8; 32] = rand::random();
    let text = format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bits));
    let hash = hash(&text);
    NewToken { text, hash }
}

/// What is stored of a secret.
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_carry_256_bits() {
        let (one, other) = (make(TokenKind::Driver), make(TokenKind::Driver));
        assert_ne!(one.text, other.text);
        assert_eq!(one.hash, hash(&one.text));
        let bits = URL_SAFE_NO_PAD.decode(one.text.strip_prefix("dt_drv_").unwrap()).unwrap();
        assert_eq!(bits.len(), 32);
    }
}
