//! Signatures and wire shapes of shops.
