//! The command `events`: lists, shows and replays events to shops.
//!
//! Must not: post an event. A running service posts what is pending.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::CommandError;
use crate::cli::EventsCommand;
use crate::config::MaintenanceConfig;
use crate::domain::event::{OutboundState, Selection};
use crate::domain::ids::EventId;
use crate::store::outbox::{self, EventRow};
use crate::store::{Database, StoreError};

/// Events in one transaction.
const PAGE: i64 = 1000;

/// Runs the command and prints its result on standard output.
pub async fn run(command: EventsCommand, config: MaintenanceConfig) -> Result<(), CommandError> {
    let database = Database::new(config.database.url.expose(), 1, false, Handle::current())?;
    match command {
        EventsCommand::List(chosen, limit) => list(&database, &chosen, limit).await,
        EventsCommand::Show(id) => show(&database, id).await,
        EventsCommand::Replay(ids) => {
            println!("{}", replay(&database, ids).await?);
            Ok(())
        }
        EventsCommand::ReplayAll(chosen) => {
            println!("{}", replay_all(&database, &chosen).await?);
            Ok(())
        }
    }
}

async fn list(database: &Database, chosen: &Selection, limit: u32) -> Result<(), CommandError> {
    let (mut left, mut before) = (i64::from(limit), None);
    while left > 0 {
        let which = chosen.clone();
        let page = left.min(PAGE);
        let rows = database
            .transact(move |conn| Box::pin(async move { outbox::list(conn, &which, before, page).await }))
            .await?;
        rows.iter().for_each(|row| println!("{}", line(row)));
        let Some(last) = rows.last() else { break };
        (left, before) = (left - rows.len() as i64, Some(EventId(last.event_id)));
    }
    Ok(())
}

fn line(row: &EventRow) -> String {
    let EventRow { event_id, kind, shop, delivery_id, sequence, state, created_at, .. } = row;
    format!("{event_id}\t{kind}\t{shop}\t{delivery_id}\t{sequence}\t{state}\t{created_at}")
}

async fn show(database: &Database, id: EventId) -> Result<(), CommandError> {
    let (row, attempts, body) = database
        .transact(move |conn| {
            Box::pin(async move {
                let row = outbox::get(&mut *conn, id).await?.ok_or(CommandError::NoSuchEvent(id))?;
                let attempts = outbox::attempts(&mut *conn, &[id.0]).await?;
                Ok::<_, CommandError>((row, attempts, outbox::body(conn, id).await?))
            })
        })
        .await?;
    let attempts: Vec<Value> =
        attempts.iter().map(|one| json!({"at": one.at, "status": one.status, "error": one.error})).collect();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let shown = json!({
        "id": row.event_id, "type": row.kind, "deliveryId": row.delivery_id, "shop": row.shop, "sequence": row.sequence,
        "state": row.state, "createdAt": row.created_at, "attempts": attempts, "body": body,
        "nextAttemptAt": (row.state == OutboundState::Pending.as_str()).then_some(row.next_try_at),
    });
    println!("{shown:#}");
    Ok(())
}

/// Replays events and returns how many. An event that is being posted is not counted. An unknown id changes no event.
async fn replay(database: &Database, ids: Vec<EventId>) -> Result<usize, CommandError> {
    database
        .transact(move |conn| {
            Box::pin(async move {
                let mut count = 0;
                for id in ids.into_iter().collect::<BTreeSet<_>>() {
                    outbox::get(&mut *conn, id).await?.ok_or(CommandError::NoSuchEvent(id))?;
                    count += usize::from(outbox::replay(&mut *conn, id).await?);
                }
                Ok(count)
            })
        })
        .await
}

/// Replays all selected events page by page, so that no transaction takes long. An event that becomes dead again meanwhile is
/// not replayed twice.
async fn replay_all(database: &Database, chosen: &Selection) -> Result<usize, StoreError> {
    let (mut total, mut after) = (0, None);
    loop {
        let which = chosen.clone();
        let replayed = database
            .transact(move |conn| Box::pin(async move { outbox::replay_some(conn, &which, after, PAGE).await }));
        let (count, newest) = replayed.await?;
        total += count;
        if (count as i64) < PAGE {
            return Ok(total);
        }
        after = newest;
    }
}
