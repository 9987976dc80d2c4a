//! Writes the fixes of deliveries that wait to PostgreSQL.

use super::driver::{Task, TaskError};
use crate::ingest::TrackWriter;

/// The task.
#[derive(Clone)]
pub struct TrackFlush {
    /// What writes them.
    pub writer: TrackWriter,
}

impl Task for TrackFlush {
    async fn run(&mut self) -> Result<(), TaskError> {
        Ok(self.writer.write().await?)
    }
}
