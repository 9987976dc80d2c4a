//! Wakes the coordinator of every region that has an order due, whatever resolution its region was made with: no accepted
//! order is forgotten.

use super::driver::{Task, TaskError};
use crate::effects::AssignmentQueue;
use crate::store::{Database, waiting};

/// The task.
#[derive(Clone)]
pub struct WaitingSweep {
    /// PostgreSQL.
    pub database: Database,
    /// The coordinators' work.
    pub assignment: AssignmentQueue,
}

impl Task for WaitingSweep {
    async fn run(&mut self) -> Result<(), TaskError> {
        let regions = self.database.transact(|conn| Box::pin(async move { waiting::regions(conn).await })).await?;
        metrics::gauge!("driver_tracker_regions_waiting").set(regions.len() as f64);
        for region in regions {
            self.assignment.search_due(region);
        }
        Ok(())
    }
}
