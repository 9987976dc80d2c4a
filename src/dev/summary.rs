//! The live figures of `dev`: one screen that updates in place on a terminal, plain lines elsewhere.

use std::io::Write;
use std::time::{Duration, Instant};

use super::shop::ReceivingShop;
use super::simulate::Progress;
use crate::app::Service;
use crate::store::{StoreError, outbox, overview};

/// The time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Prints the figures repeatedly.
pub struct Summary {
    terminal: bool,
    shown_lines: usize,
    last_plain: Option<Instant>,
}

impl Summary {
    /// On a terminal each output overwrites the one before. Elsewhere each output is a new line.
    pub fn new(terminal: bool) -> Self {
        Self { terminal, shown_lines: 0, last_plain: None }
    }

    /// Reads the figures and prints them. `fleet` holds the progress of the simulation and how many drivers it keeps free.
    pub async fn show(&mut self, service: &Service, shop: &ReceivingShop, fleet: Option<(&Progress, u32)>) {
        if !self.terminal && self.last_plain.is_some_and(|at| at.elapsed() < PLAIN_EVERY) {
            return;
        }
        self.last_plain = Some(Instant::now());
        let facts = match facts(service).await {
            Ok(facts) => facts,
            Err(error) => return self.print(&[format!("PostgreSQL does not answer: {error}")]),
        };
        let redis = if service.presence.is_trusted() { "ok" } else { "out: searching in PostgreSQL" };
        let mut lines = vec![
            format!("drivers   online {}  on duty {}  busy {}", service.sessions.len(), facts.0.on_duty, facts.0.busy),
            format!(
                "orders    waiting {}  in progress {}  delivered {}",
                facts.0.waiting, facts.0.under_way, facts.0.delivered
            ),
            format!("events    posted {}  pending {}  dead {}", shop.counts().accepted, facts.1.pending, facts.1.dead),
        ];
        if let Some((progress, kept_free)) = fleet {
            lines.push(format!(
                "fleet     free {}  ({kept_free} of {} drivers kept free for your orders)",
                progress.drivers_free, progress.drivers
            ));
            let mut traffic = format!("traffic   {:.0} heartbeats/s", progress.heartbeats_acked_per_s);
            let way = &progress.webhook_to_socket;
            if way.count > 0 {
                traffic += &format!("  order → driver's socket p50 {:.1} ms  p99 {:.1} ms", way.p50_ms, way.p99_ms);
            }
            lines.push(traffic);
        }
        lines.push(format!("redis     {redis}"));
        self.print(&lines);
    }

    fn print(&mut self, lines: &[String]) {
        let mut out = std::io::stdout().lock();
        if !self.terminal {
            let joined: Vec<String> =
                lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            let _ = writeln!(out, "{}", joined.join(" | "));
            return;
        }
        if self.shown_lines > 0 {
            // Moves the cursor to where the last output began and clears from there.
            let _ = write!(out, "\x1b[{}A\x1b[J", self.shown_lines);
        }
        for line in lines {
            let _ = writeln!(out, "  {line}");
        }
        let _ = out.flush();
        self.shown_lines = lines.len();
    }
}

async fn facts(service: &Service) -> Result<(overview::Overview, outbox::OutboxStats), StoreError> {
    service
        .database
        .transact(|conn| Box::pin(async move { Ok((overview::read(conn).await?, outbox::stats(conn).await?)) }))
        .await
}
