//! Keeps this node's shop directory equal to PostgreSQL.

use std::sync::Arc;

use super::driver::{Task, TaskError};
use crate::shops::ShopDirectory;
use crate::store::Database;

/// The task.
#[derive(Clone)]
pub struct ShopRefresh {
    /// PostgreSQL.
    pub database: Database,
    /// The directory.
    pub shops: Arc<ShopDirectory>,
}

impl Task for ShopRefresh {
    async fn run(&mut self) -> Result<(), TaskError> {
        Ok(self.shops.refresh(&self.database).await?)
    }
}
