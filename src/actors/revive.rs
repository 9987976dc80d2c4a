//! An actor that is started anew when it died. A panic under actix ends an actor for ever, `Supervisor` included, and its
//! address swallows what it is sent: so every address of a long-lived actor is looked at before it is used.

use std::sync::{Arc, Mutex};

use actix::prelude::*;

use super::lock;

/// A long-lived actor on an arbiter.
pub struct Revived<A: Actor<Context = Context<A>>> {
    name: &'static str,
    arbiter: ArbiterHandle,
    mailbox: usize,
    make: Arc<dyn Fn() -> A + Send + Sync>,
    current: Mutex<Addr<A>>,
}

impl<A: Actor<Context = Context<A>>> Revived<A> {
    /// Starts the actor with room for `mailbox` messages.
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

    /// The living actor: the one that runs, or a new one.
    pub fn addr(&self) -> Addr<A> {
        let mut current = lock(&self.current);
        if !current.connected() {
            tracing::error!(actor = self.name, "an actor died and is started anew");
            metrics::counter!("driver_tracker_actor_restarts_total", "actor" => self.name).increment(1);
            *current = launch(&self.arbiter, self.mailbox, &self.make);
        }
        current.clone()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Fragile;

    impl Actor for Fragile {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Ask;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;

    impl Handler<Ask> for Fragile {
        type Result = u32;
        fn handle(&mut self, _: Ask, _: &mut Self::Context) -> u32 {
            7
        }
    }

    impl Handler<Die> for Fragile {
        type Result = ();
        fn handle(&mut self, _: Die, _: &mut Self::Context) {
            panic!("as a bug would");
        }
    }

    #[actix_web::test]
    async fn an_actor_that_panicked_works_again() {
        let arbiter = Arbiter::new();
        let revived = Revived::start("fragile", &arbiter.handle(), 4, || Fragile);
        let first = revived.addr();
        assert_eq!(first.send(Ask).await.ok(), Some(7));
        let _ = first.send(Die).await;
        for _ in 0..100 {
            if !first.connected() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(first.send(Ask).await.is_err(), "the old address is dead for ever");
        assert_eq!(revived.addr().send(Ask).await.ok(), Some(7));
        arbiter.stop();
    }
}
