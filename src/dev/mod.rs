//! Development tools: private servers, a receiving shop and a simulated fleet. Production never needs them.

mod demand;
pub mod fleet;
mod introduction;
mod run;
mod seed;
pub mod servers;
pub mod shop;
pub mod simulate;
mod summary;
mod workspace;

use clap::ArgMatches;
use tokio::sync::watch;

pub use run::{DevError, run};

/// Runs `simulate`: prints progress and the final report. Ctrl-C ends the run early.
/// On failure returns an exit code and an error message.
pub async fn simulate_command(matches: &ArgMatches) -> Result<(), (u8, String)> {
    let options =
        simulate::cli::options(matches, |name| std::env::var(name).ok()).map_err(|error| (2, error.to_string()))?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(true);
        }
    });
    simulate::cli::run(options, stopped).await.map(drop).map_err(|error| (1, error.to_string()))
}
