//! Identities. Ours are UUIDv7 (they sort by time of creation); the shops' are opaque text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later in order than those made before it in this process.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// A driver.
    DriverId
);
uuid_id!(
    /// One order on its way from a pickup to a drop.
    DeliveryId
);
uuid_id!(
    /// One driver's hold on one delivery.
    AssignmentId
);
uuid_id!(
    /// An event that goes out to a shop; also its `webhook-id`.
    EventId
);
uuid_id!(
    /// A command to a driver that is repeated until acknowledged.
    MessageId
);
uuid_id!(
    /// One WebSocket session.
    SessionId
);
uuid_id!(
    /// A driver's bearer token (its row, not its secret).
    TokenId
);
uuid_id!(
    /// An API key (its row, not its secret).
    ApiKeyId
);

/// Why a text is not an id of the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextIdError {
    /// Nothing in it.
    #[error("must not be empty")]
    Empty,
    /// More than 128 Unicode scalar values.
    #[error("must be at most 128 characters")]
    TooLong,
    /// A control character.
    #[error("must not contain control characters")]
    Control,
}

/// An opaque id given by a shop: 1 to 128 Unicode scalar values, none of them a control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ExternalId(String);

impl ExternalId {
    /// The most characters that an id may have.
    pub const MAX_CHARS: usize = 128;

    /// Checks length and characters; changes nothing.
    pub fn parse(text: &str) -> Result<Self, TextIdError> {
        if text.is_empty() {
            return Err(TextIdError::Empty);
        }
        if text.chars().count() > Self::MAX_CHARS {
            return Err(TextIdError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(TextIdError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text as the shop gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shop's short name: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ShopName(String);

impl ShopName {
    /// The shop that the configuration makes.
    pub fn vendure() -> Self {
        Self("vendure".to_owned())
    }

    /// `None` when the text is not a shop's name.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let first = *bytes.first()?;
        let rest_ok = bytes[1..].iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        ((first.is_ascii_lowercase() || first.is_ascii_digit()) && rest_ok && bytes.len() <= 63)
            .then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShopName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_ids_count_characters_not_bytes() {
        assert!(ExternalId::parse(&"é".repeat(128)).is_ok());
        assert_eq!(ExternalId::parse(&"é".repeat(129)), Err(TextIdError::TooLong));
        assert_eq!(ExternalId::parse(""), Err(TextIdError::Empty));
        assert_eq!(ExternalId::parse("a\u{7}"), Err(TextIdError::Control));
    }

    #[test]
    fn shop_names_are_short_and_lower_case() {
        assert!(ShopName::parse("vendure").is_some());
        assert!(ShopName::parse("7-eleven").is_some());
        for bad in ["", "-a", "A", "a_b", "a/b", &"a".repeat(64)] {
            assert!(ShopName::parse(bad).is_none(), "{bad}");
        }
    }
}
