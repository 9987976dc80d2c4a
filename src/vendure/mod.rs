//! Signatures and wire shapes of shops.
#![allow(missing_docs)]
pub mod event;
pub mod client;
pub mod retry;
pub mod signature;
