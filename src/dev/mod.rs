//! What helps to try the service and is never needed in production: private servers, a receiving shop, a simulated fleet.

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

/// Runs `simulate`: prints progress and the closing report; Ctrl-C ends it early. Fails with an exit code and a sentence.
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
