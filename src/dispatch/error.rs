//! Why a use case was refused or failed.
//!
//! A use case that returns one of these errors has changed nothing, because its transaction is rolled back. The one exception
//! is [`StoreError::Unavailable`]: the commit may have happened although its answer was lost.

use crate::domain::delivery::{DeliveryStatus, InvalidTransition};
use crate::domain::driver::DriverRefusal;
use crate::domain::fields::FieldError;
use crate::store::StoreError;

/// A refusal, or a failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// PostgreSQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object does not exist, or it belongs to another driver or shop.
    #[error("not found")]
    NotFound,
    /// The delivery's present state does not allow the action.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// A delivery that has ended cannot be cancelled.
    #[error("the delivery is already {0}")]
    AlreadyTerminal(DeliveryStatus),
    /// The assignment is no longer active.
    #[error("the assignment is closed")]
    AssignmentClosed,
    /// A newer session of the driver exists.
    #[error("a newer session has taken over")]
    SessionReplaced,
    /// The driver's present state does not allow the change.
    #[error(transparent)]
    Driver(#[from] DriverRefusal),
    /// The object exists already.
    #[error("there is already {0}")]
    Exists(&'static str),
    /// Fields of the request are invalid.
    #[error("invalid fields")]
    Fields(Vec<FieldError>),
    /// A request with the same `Idempotency-Key` is still in progress.
    #[error("a request with this Idempotency-Key is still under way")]
    UnderWay,
    /// The same `Idempotency-Key` was used before with another body.
    #[error("this Idempotency-Key was used with another body")]
    KeyReused,
}

impl DispatchError {
    /// Whether the same request may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unavailable())
    }
}
