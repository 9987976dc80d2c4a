//! Why a use case did not happen. Nothing was changed.

use crate::domain::delivery::{DeliveryStatus, InvalidTransition};
use crate::domain::driver::DriverRefusal;
use crate::domain::fields::FieldError;
use crate::store::StoreError;

/// A refusal, or a failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such thing, or it is somebody else's.
    #[error("not found")]
    NotFound,
    /// The present state does not allow it.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// A delivery that is over cannot be called off.
    #[error("the delivery is already {0}")]
    AlreadyTerminal(DeliveryStatus),
    /// The assignment is no longer active.
    #[error("the assignment is closed")]
    AssignmentClosed,
    /// A newer session of the driver exists.
    #[error("a newer session has taken over")]
    SessionReplaced,
    /// The driver's state does not allow it.
    #[error(transparent)]
    Driver(#[from] DriverRefusal),
    /// There is one already.
    #[error("there is already {0}")]
    Exists(&'static str),
    /// A field is invalid.
    #[error("invalid fields")]
    Fields(Vec<FieldError>),
    /// A request with the same `Idempotency-Key` is still under way.
    #[error("a request with this Idempotency-Key is still under way")]
    UnderWay,
    /// The `Idempotency-Key` came with another body before.
    #[error("this Idempotency-Key was used with another body")]
    KeyReused,
}

impl DispatchError {
    /// Whether the same request may succeed at another moment.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unavailable())
    }
}
