//! Secrets that the API gives out: 256 random bits each, shown once, stored as SHA-256.

use crate::domain::secret_token::SecretToken;

/// What a secret is for; its text begins with it, so that a leaked one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A driver's bearer token.
    Driver,
    /// A one-use ticket for a WebSocket.
    Ticket,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Driver => "dt_drv_",
            Self::Ticket => "dt_tkt_",
        }
    }
}

/// Makes a secret.
pub fn make(kind: TokenKind) -> SecretToken {
    SecretToken::from_bytes(kind.prefix(), &rand::random())
}

/// What is stored of a secret that somebody presents.
pub fn hash(text: &str) -> Vec<u8> {
    SecretToken::presented(text).hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_are_found_by_their_hash() {
        let (one, other) = (make(TokenKind::Driver), make(TokenKind::Driver));
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.hash(), hash(one.expose()));
        assert!(one.expose().starts_with("dt_drv_") && one.expose().len() == 7 + 43);
    }
}
