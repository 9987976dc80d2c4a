//! Actors that are restarted after a panic, and wake-ups that reach them.
//!
//! A panic ends an actix actor for good, also under actix' own `Supervisor`; its address then swallows messages. So each
//! long-lived actor is checked at an interval and replaced when it died. What it had to do is kept outside of it (a queue,
//! a table), so that the new actor finds the work; what a panic takes of the rest, a later message or a sweep brings again.

use std::sync::{Arc, Mutex};

use actix::dev::ToEnvelope;
use actix::prelude::*;
use tokio::sync::Notify;

use super::lock;

/// A long-lived actor on an arbiter.
pub struct Supervised<A: Actor<Context = Context<A>>> {
    name: &'static str,
    arbiter: ArbiterHandle,
    mailbox: usize,
    make: Arc<dyn Fn() -> A + Send + Sync>,
    current: Mutex<Addr<A>>,
}

/// An actor that can be checked and restarted, whatever its type.
pub trait RestartIfDead: Send + Sync {
    /// Starts a new actor when the present one died.
    fn restart_if_dead(&self);
}

impl<A: Actor<Context = Context<A>>> Supervised<A> {
    /// Starts the actor with a mailbox of `mailbox` messages.
    pub fn start(
        name: &'static str,
        arbiter: &ArbiterHandle,
        mailbox: usize,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        let make: Arc<dyn Fn() -> A + Send + Sync> = Arc::new(make);
        let current = Mutex::new(launch(arbiter, mailbox, &make));
        Self { name, arbiter: arbiter.clone(), mailbox, make, current }
    }

    /// The running actor, or a new one when it died.
    pub fn addr(&self) -> Addr<A> {
        let mut current = lock(&self.current);
        if !current.connected() {
            tracing::error!(actor = self.name, "an actor died and is restarted");
            metrics::counter!("driver_tracker_actor_restarts_total", "actor" => self.name).increment(1);
            *current = launch(&self.arbiter, self.mailbox, &self.make);
        }
        current.clone()
    }
}

impl<A: Actor<Context = Context<A>>> RestartIfDead for Supervised<A> {
    fn restart_if_dead(&self) {
        self.addr();
    }
}

fn launch<A: Actor<Context = Context<A>>>(
    arbiter: &ArbiterHandle,
    mailbox: usize,
    make: &Arc<dyn Fn() -> A + Send + Sync>,
) -> Addr<A> {
    let make = make.clone();
    A::start_in_arbiter(arbiter, move |ctx| {
        ctx.set_mailbox_capacity(mailbox);
        make()
    })
}

/// Sends the actor a message each time `wake_up` is notified, and waits until it is handled: at most one waits, however
/// often the actor is notified meanwhile. Called in `started`; ends with the actor.
///
/// The mailbox' own capacity is no such bound: it holds for each clone of an address.
pub fn forward_wake_ups<A, M>(wake_up: Arc<Notify>, ctx: &mut Context<A>, message: impl Fn() -> M + 'static)
where
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    let actor = ctx.address();
    let forwarding = async move {
        loop {
            wake_up.notified().await;
            if actor.send(message()).await.is_err() {
                return;
            }
        }
    };
    ctx.spawn(actix::fut::wrap_future(forwarding));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Semaphore;

    #[derive(Clone)]
    struct Worker {
        wake_up: Arc<Notify>,
        permits: Arc<Semaphore>,
        woken: Arc<AtomicUsize>,
    }

    impl Worker {
        fn new() -> Self {
            Self { wake_up: Arc::default(), permits: Arc::new(Semaphore::new(0)), woken: Arc::default() }
        }

        /// Starts an actor, and replaces it when it dies. All of them share the fields of this one.
        fn supervise(&self, arbiter: &Arbiter) -> Supervised<Self> {
            let worker = self.clone();
            Supervised::start("worker", &arbiter.handle(), 4, move || worker.clone())
        }
    }

    impl Actor for Worker {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            forward_wake_ups(self.wake_up.clone(), ctx, || Work);
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Work;

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Ask;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;

    impl Handler<Work> for Worker {
        type Result = AtomicResponse<Self, ()>;

        fn handle(&mut self, _: Work, _: &mut Self::Context) -> Self::Result {
            self.woken.fetch_add(1, Ordering::Relaxed);
            let permits = self.permits.clone();
            let pass = async move { permits.acquire().await.expect("a semaphore that stays open").forget() };
            AtomicResponse::new(Box::pin(pass.into_actor(self)))
        }
    }

    impl Handler<Ask> for Worker {
        type Result = u32;
        fn handle(&mut self, _: Ask, _: &mut Self::Context) -> u32 {
            7
        }
    }

    impl Handler<Die> for Worker {
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
    async fn an_actor_that_panicked_is_replaced_and_finds_the_wake_up_that_came_while_it_was_dead() {
        let arbiter = Arbiter::new();
        let worker = Worker::new();
        let supervised = worker.supervise(&arbiter);
        let first = supervised.addr();
        assert_eq!(first.send(Ask).await.ok(), Some(7));
        let _ = first.send(Die).await;
        until(|| !first.connected()).await;
        worker.wake_up.notify_one();
        assert!(first.send(Ask).await.is_err(), "the old address stays dead");
        assert_eq!(supervised.addr().send(Ask).await.ok(), Some(7));
        until(|| worker.woken.load(Ordering::Relaxed) == 1).await;
        worker.permits.add_permits(1);
        arbiter.stop();
    }

    #[actix_web::test]
    async fn an_actor_that_stalls_is_woken_once_for_all_that_came_meanwhile() {
        let arbiter = Arbiter::new();
        let worker = Worker::new();
        let supervised = worker.supervise(&arbiter);
        worker.wake_up.notify_one();
        until(|| worker.woken.load(Ordering::Relaxed) == 1).await;
        for _ in 0..1000 {
            worker.wake_up.notify_one();
        }
        worker.permits.add_permits(1000);
        until(|| worker.woken.load(Ordering::Relaxed) == 2).await;
        assert_eq!(supervised.addr().send(Ask).await.ok(), Some(7));
        assert_eq!(worker.woken.load(Ordering::Relaxed), 2, "the first, and the one that waited");
        arbiter.stop();
    }
}
