//! Deletes acknowledged commands and kept answers that are too old to be of use.

use super::driver::{Task, TaskError};
use crate::store::{Database, StoreError, commands, idempotency};

/// The task.
#[derive(Clone)]
pub struct Pruning {
    /// PostgreSQL.
    pub database: Database,
}

impl Task for Pruning {
    async fn run(&mut self) -> Result<(), TaskError> {
        let pruned: Result<(), StoreError> = self
            .database
            .transact(|conn| {
                Box::pin(async move {
                    commands::prune(conn).await?;
                    idempotency::prune(conn).await?;
                    Ok(())
                })
            })
            .await;
        Ok(pruned?)
    }
}
