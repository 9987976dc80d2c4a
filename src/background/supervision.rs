//! Restarts actors that died of a panic.

use std::sync::Arc;

use super::driver::{Task, TaskError};
use crate::process::RestartIfDead;

/// The task.
#[derive(Clone)]
pub struct Supervision {
    /// The long-lived actors of this node.
    pub actors: Vec<Arc<dyn RestartIfDead>>,
}

impl Task for Supervision {
    async fn run(&mut self) -> Result<(), TaskError> {
        self.actors.iter().for_each(|actor| actor.restart_if_dead());
        Ok(())
    }
}
