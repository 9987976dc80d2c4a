//! Runs the use cases of `dispatch`: one transaction each, and its effects after the commit.

use std::sync::Arc;

use super::EffectsApplier;
use crate::dispatch::{DispatchError, DispatchSettings, Effects, Unit};
use crate::store::{Database, Work};

/// Runs use cases; cheap to clone.
#[derive(Clone)]
pub struct UseCases {
    database: Database,
    settings: Arc<DispatchSettings>,
    applier: EffectsApplier,
}

impl UseCases {
    /// Use cases on this database, with these settings.
    pub fn new(database: Database, settings: DispatchSettings, applier: EffectsApplier) -> Self {
        Self { database, settings: Arc::new(settings), applier }
    }

    /// Runs a use case in a transaction, commits it, and applies its effects. An error rolls it back.
    pub async fn transact_and_apply<T, F>(&self, work: F) -> Result<T, DispatchError>
    where
        F: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> Work<'u, T, DispatchError> + Send + 'static,
        T: Send + 'static,
    {
        let (value, effects) = self.transact(work).await?;
        self.apply(effects).await;
        Ok(value)
    }

    /// As [`Self::transact_and_apply`], but the caller applies the effects.
    pub async fn transact<T, F>(&self, work: F) -> Result<(T, Effects), DispatchError>
    where
        F: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> Work<'u, T, DispatchError> + Send + 'static,
        T: Send + 'static,
    {
        let settings = self.settings.clone();
        self.database
            .transact(move |conn| {
                Box::pin(async move {
                    let mut unit = Unit::begin(conn, &settings).await?;
                    let value = work(&mut unit).await?;
                    Ok((value, unit.effects))
                })
            })
            .await
    }

    /// Applies the effects of a committed use case.
    pub async fn apply(&self, effects: Effects) {
        self.applier.apply(effects).await;
    }

    /// PostgreSQL, for reads.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The settings of the use cases.
    pub fn settings(&self) -> &DispatchSettings {
        &self.settings
    }
}
