//! Ends all sessions of a node that shuts down.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::directory::SessionDirectory;
use super::mailbox::ToSession;

/// Sends every socket `reconnect` and closes it, spread over `spread`, and waits until they are gone.
pub async fn send_away(directory: &SessionDirectory, spread: Duration, latest: Instant) {
    let began = Instant::now();
    let deadline = (began + spread + Duration::from_millis(500)).min(latest);
    let mut notified = HashSet::new();
    // A socket that was accepted before the drain may open its session during it.
    while Instant::now() < deadline {
        if directory.is_empty() {
            return;
        }
        let fresh: Vec<_> = directory.all().into_iter().filter(|session| notified.insert(session.session_id)).collect();
        let left_ms = spread.saturating_sub(began.elapsed()).as_millis() as u64;
        let count = fresh.len() as u64;
        for (index, session) in fresh.into_iter().enumerate() {
            let close_in_ms = left_ms * index as u64 / count;
            // The fleet reconnects spread over the same time as the closes.
            let after_ms = rand::random_range(0..=1000);
            session.mailbox.put(ToSession::Reconnect { after_ms, close_in_ms });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left = directory.len();
    tracing::warn!(sessions = left, "sockets that do not take their close are cut off");
}
