//! Messages from the node to the session, and the frames that they become.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{Ctx, DriverSession};
use crate::dispatch::duty::ASKED_BY_DRIVER;
use crate::protocol::{close, outbound};
use crate::sessions::mailbox::ToSession;
use crate::sessions::mailbox::Wake;
use crate::store::commands::Command;
use crate::store::drivers::DriverChanged;
use crate::store::sessions::SessionState;

/// A command that is not acknowledged is sent again when it comes again after this. The command dispatcher delivers it every five seconds,
/// sometimes a little less: compared with five, it would wait for the next time.
const REPEAT_AFTER: Duration = Duration::from_millis(4500);

impl Handler<Wake> for DriverSession {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Ctx) {
        let waiting = self.entry.as_ref().map(|entry| entry.mailbox.take());
        waiting.into_iter().flatten().for_each(|message| self.receive(message, ctx));
    }
}

impl DriverSession {
    #[tracing::instrument(level = "trace", skip_all)]
    fn receive(&mut self, message: ToSession, ctx: &mut Ctx) {
        match message {
            ToSession::Acked(seq) => self.send_text(ctx, outbound::ack(seq)),
            ToSession::Commands(commands) => self.commands(&commands, ctx),
            ToSession::State(news) => self.news(&news, ctx),
            ToSession::Replaced => self.end(ctx, close::REPLACED, "a newer session has taken over"),
            ToSession::Reconnect { after_ms, close_in_ms } => {
                ctx.run_later(Duration::from_millis(close_in_ms), move |this, ctx| {
                    this.send(ctx, &outbound::reconnect(after_ms));
                    this.end(ctx, close::RESTART, "the service restarts");
                });
            }
        }
    }

    /// Sends what is new or was not acknowledged for a while, as far as the client reads. The next poll brings the rest.
    #[tracing::instrument(level = "trace", skip_all)]
    fn commands(&mut self, commands: &[Command], ctx: &mut Ctx) {
        let now = Instant::now();
        for command in commands {
            let due = self.sent.get(&command.message_id).is_none_or(|sent| now.duration_since(*sent) >= REPEAT_AFTER);
            if due && self.outgoing.has_room() {
                self.sent.insert(command.message_id, now);
                self.send(ctx, &outbound::command(command));
            }
        }
        // A command that the poll no longer returns is acknowledged or void.
        self.sent.retain(|_, sent| now.duration_since(*sent) < REPEAT_AFTER * 4);
    }

    fn news(&mut self, news: &SessionState, ctx: &mut Ctx) {
        let Some(entry) = &self.entry else { return };
        if news.session_epoch != entry.session_epoch {
            return;
        }
        if news.replaced {
            self.end(ctx, close::REPLACED, "a newer session has taken over");
        } else if news.lost {
            // The app reconnects by itself, and its new session is in PostgreSQL.
            self.end(ctx, 1011, "this session is not known any more");
        } else if news.revoked {
            self.end(ctx, close::REVOKED, "the token or the driver is no longer valid");
        } else {
            // The words alone could be an operator's.
            let is_asked_for = news.by_driver && news.reason == ASKED_BY_DRIVER;
            if entry.learn(news.changed.epoch) && !is_asked_for {
                self.send(ctx, &outbound::status(&news.changed, &news.reason));
            }
            self.follow_interval(&news.changed, ctx);
        }
    }

    /// Sends a `config` frame when the heartbeat interval for this driver changed.
    pub(super) fn follow_interval(&mut self, changed: &DriverChanged, ctx: &mut Ctx) {
        if let Some(interval) = &mut self.interval
            && interval.follow(changed)
        {
            let interval = crate::sessions::interval::interval_of(
                interval.heartbeat_tier(),
                self.services.frames.heartbeat_config(),
            );
            self.send(ctx, &outbound::config(interval));
        }
    }
}
