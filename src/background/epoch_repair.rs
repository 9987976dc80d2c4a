//! Compares drivers at once of whom Redis knows a newer epoch than PostgreSQL.

use super::driver::{Task, TaskError};
use super::full_resync::FullResync;
use crate::effects::StaleEpochs;

/// The task.
pub struct EpochRepair {
    /// The drivers.
    pub stale_epochs: StaleEpochs,
    /// What compares and repairs them.
    pub resync: FullResync,
}

impl Task for EpochRepair {
    async fn run(&mut self) -> Result<(), TaskError> {
        let drivers = self.stale_epochs.take();
        if drivers.is_empty() {
            return Ok(());
        }
        Ok(self.resync.compare(drivers).await?)
    }
}
