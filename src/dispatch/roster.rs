//! Changes that operators make to drivers: profile, capacity, activation, tokens.
//!
//! A change of state is written with its audit row, and the driver's sessions are notified.

use super::{DispatchError, Unit};
use crate::domain::driver::DriverChange;
use crate::domain::event::Actor;
use crate::domain::ids::{DriverId, TokenId};
use crate::store::credentials;
use crate::store::drivers::{self, Driver, ProfileChange};

/// An operator's change of a driver. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct DriverPatch {
    /// Name, telephone, external id, metadata.
    pub profile: ProfileChange,
    /// How many deliveries the driver can hold at once.
    pub capacity: Option<i32>,
    /// `true` reactivates the driver, `false` deactivates them.
    pub active: Option<bool>,
}

/// Changes a driver. Returns the driver after the change.
pub async fn patch(
    unit: &mut Unit<'_>,
    driver: DriverId,
    patch: &DriverPatch,
    actor: &Actor,
) -> Result<Driver, DispatchError> {
    let found = drivers::lock(unit.conn, driver).await?.ok_or(DispatchError::NotFound)?;
    let mut state = found.state;
    if let Some(capacity) = patch.capacity {
        state = state.transition(DriverChange::SetCapacity(capacity))?;
    }
    if let Some(active) = patch.active {
        state = state.transition(DriverChange::SetActive(active))?;
    }
    drivers::update_profile(unit.conn, driver, &patch.profile).await?;
    if state != found.state {
        let changed = drivers::apply(unit.conn, driver, state, "changed by an operator", actor).await?;
        unit.effects.drivers.push(changed);
        unit.effects.sessions.push(driver);
    }
    drivers::get(unit.conn, driver).await?.ok_or(DispatchError::NotFound)
}

/// Revokes a token of a driver. The token's sessions end. A repeated call succeeds.
pub async fn revoke_token(unit: &mut Unit<'_>, driver: DriverId, token: TokenId) -> Result<(), DispatchError> {
    if !credentials::revoke_token(unit.conn, driver, token).await? {
        return Err(DispatchError::NotFound);
    }
    unit.effects.sessions.push(driver);
    Ok(())
}
