//! `Wake`: of one kind of message, at most one waits for an actor. Whoever only says "there is something to do" says it by
//! this, and lets what there is to do stand elsewhere.
//!
//! A mailbox's own capacity is no bound: it holds for each clone of an address, and a fresh clone is never full. So an actor
//! that stalls would find everything that was said to it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

/// One kind of wake-up for one actor; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Wake {
    is_queued: Arc<AtomicBool>,
}

/// Rides in the message; while it lives, no second one is sent. A handler that drops it **before** it looks for its work
/// misses nothing; one that keeps it until the work is done skips what comes meanwhile, as a tick may. It is dropped as well
/// with the mailbox of an actor that died.
#[derive(Debug)]
#[must_use = "dropped, it lets the next one be sent"]
pub struct Queued(Arc<AtomicBool>);

impl Wake {
    /// Sends the message, unless one is on its way.
    pub fn send<A, M>(&self, actor: &Addr<A>, message: impl FnOnce(Queued) -> M)
    where
        A: Actor + Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message<Result = ()> + Send + 'static,
    {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            // What is refused is dropped, and with it the sign that it is on its way.
            let _ = actor.try_send(message(Queued(self.is_queued.clone())));
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use actix::prelude::*;
    use tokio::sync::Semaphore;

    struct Sleeper {
        gate: Arc<Semaphore>,
        woken: Arc<AtomicUsize>,
    }

    impl Actor for Sleeper {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Work(Queued);

    #[derive(Message)]
    #[rtype(result = "usize")]
    struct Count;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;

    impl Handler<Work> for Sleeper {
        type Result = AtomicResponse<Self, ()>;
        fn handle(&mut self, Work(queued): Work, _: &mut Self::Context) -> Self::Result {
            drop(queued);
            self.woken.fetch_add(1, Ordering::Relaxed);
            let gate = self.gate.clone();
            let pass = async move { gate.acquire().await.expect("a gate that stays").forget() };
            AtomicResponse::new(Box::pin(pass.into_actor(self)))
        }
    }

    impl Handler<Count> for Sleeper {
        type Result = usize;
        fn handle(&mut self, _: Count, _: &mut Self::Context) -> usize {
            self.woken.load(Ordering::Relaxed)
        }
    }

    impl Handler<Die> for Sleeper {
        type Result = ();
        fn handle(&mut self, _: Die, _: &mut Self::Context) {
            panic!("as a bug would");
        }
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..500 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("did not happen");
    }

    #[actix_web::test]
    async fn an_actor_that_stalls_finds_one_wake_up_and_one_that_died_with_it_is_woken_in_its_next_life() {
        let arbiter = Arbiter::new();
        let (gate, woken) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let start = || {
            let (gate, woken) = (gate.clone(), woken.clone());
            Sleeper::start_in_arbiter(&arbiter.handle(), move |_| Sleeper { gate, woken })
        };
        let (wake, first) = (Wake::default(), start());
        wake.send(&first, Work);
        until(|| woken.load(Ordering::Relaxed) == 1).await;
        for _ in 0..1000 {
            wake.send(&first.clone(), Work);
        }
        gate.add_permits(5000);
        assert_eq!(first.send(Count).await.ok(), Some(2), "the first, and the one that waited");
        gate.forget_permits(5000);

        // Stalled again: it dies as soon as that is over, before it comes to the wake-up.
        wake.send(&first, Work);
        until(|| woken.load(Ordering::Relaxed) == 3).await;
        assert!(first.try_send(Die).is_ok());
        wake.send(&first, Work);
        gate.add_permits(1);
        until(|| !first.connected()).await;
        let second = start();
        wake.send(&second, Work);
        until(|| woken.load(Ordering::Relaxed) == 4).await;
        arbiter.stop();
    }
}
