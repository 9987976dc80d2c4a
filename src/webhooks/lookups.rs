//! Names of shops, resolved a few at once for each name.
//!
//! The resolver of the system takes a thread for as long as it waits, also for a caller who has gone, and there are so many
//! threads for all shops: without a bound those whose name servers do not answer would take them all.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::Semaphore;

/// Lookups of one name at once, those included that nobody waits for any more.
const AT_ONCE: usize = 2;

/// See the module; clones share the bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Lookups {
    by_name: Arc<DashMap<String, Arc<Semaphore>>>,
}

impl Lookups {
    /// What the system says of a name; ports are 0.
    pub(super) async fn find(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        self.find_by(name, |name| Ok((name, 0).to_socket_addrs()?.collect())).await
    }

    async fn find_by(
        &self,
        name: &str,
        ask: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let turns = self.by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone();
        let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
        let (name, key) = (name.to_owned(), name.to_owned());
        let asking = tokio::task::spawn_blocking(move || {
            let answer = ask(&name);
            drop(turn);
            answer
        });
        let answer = asking.await.map_err(io::Error::other)?;
        self.by_name.remove_if(&key, |_, turns| Arc::strong_count(turns) == 1);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_name_that_hangs_takes_two_threads_and_holds_up_no_other() {
        let (lookups, asked) = (Lookups::default(), Arc::new(AtomicUsize::new(0)));
        let mut hanging = Vec::new();
        for _ in 0..10 {
            let (release, held) = mpsc::channel::<()>();
            hanging.push(release);
            let (lookups, asked) = (lookups.clone(), asked.clone());
            let caller = lookups.find_by("dead.example", move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = held.recv();
                Ok(Vec::new())
            });
            // Each caller gives up; its thread does not.
            let gone = tokio::time::timeout(Duration::from_millis(30), caller).await;
            assert!(gone.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), AT_ONCE);
        let found = lookups.find_by("alive.example", |_| Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])).await;
        assert_eq!(found.unwrap().len(), 1);
        drop(hanging);
        let again = tokio::time::timeout(Duration::from_secs(5), lookups.find_by("dead.example", |_| Ok(Vec::new())));
        assert!(again.await.is_ok(), "it may be asked again when the threads are back");
    }
}
