//! Identifiers of the service and of shops.
//!
//! - The service's own ids are UUIDv7, which sort by time of creation.
//! - The ids of shops are opaque text. They are compared and returned, never interpreted.

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
            /// Creates an id that sorts after every id that this process created before.
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
    /// A delivery: one order on its way from a pickup to a drop.
    DeliveryId
);
uuid_id!(
    /// An assignment of one delivery to one driver.
    AssignmentId
);
uuid_id!(
    /// An event that is posted to a shop. It is also the event's `webhook-id`.
    EventId
);
uuid_id!(
    /// A command to a driver. The command is repeated until the driver acknowledges it.
    MessageId
);
uuid_id!(
    /// One WebSocket session.
    SessionId
);
uuid_id!(
    /// The row of a driver's bearer token. It is not the secret.
    TokenId
);
uuid_id!(
    /// The row of an API key. It is not the secret.
    ApiKeyId
);

/// Why a text is not a valid external id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextIdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than 128 Unicode scalar values.
    #[error("must be at most 128 characters")]
    TooLong,
    /// The text has a control character.
    #[error("must not contain control characters")]
    Control,
}

/// An opaque id that a shop chose: 1 to 128 Unicode scalar values, none of them a control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ExternalId(String);

impl ExternalId {
    /// The largest number of characters in an id.
    pub const MAX_CHARS: usize = 128;

    /// Checks the length and the characters. The text is kept as it is.
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

    /// The text as the shop sent it.
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
    /// The name of the shop that the configuration defines.
    pub fn vendure() -> Self {
        Self("vendure".to_owned())
    }

    /// Returns `None` if the text is not a valid shop name.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let first = *bytes.first()?;
        let rest_ok = bytes[1..].iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        ((first.is_ascii_lowercase() || first.is_ascii_digit()) && rest_ok && bytes.len() <= 63)
            .then(|| Self(text.to_owned()))
    }

    /// The name as text.
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
