//! Signatures and wire shapes of shops.
pub mod event;
