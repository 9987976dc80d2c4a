//! The program: parses the command line, runs the command, and exits with 0, 1 or 2.

use std::process::ExitCode;

use driver_tracker::app::{Service, StartError, background_runtime};
use driver_tracker::cli::{self, DoctorArgs, Invocation};
use driver_tracker::commands;
use driver_tracker::config::{Config, DoctorConfig, LogConfig};
#[cfg(feature = "dev")]
use driver_tracker::dev;
use driver_tracker::telemetry::{self, LogOutput};
use tokio::signal::unix::{SignalKind, signal};

/// glibc's allocator fragments the heap while drivers connect: a connected driver takes 36 KB instead of 15 KB.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(invocation) => invocation,
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    // One cryptography provider serves every TLS connection of the process. Only the first call has an effect.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, sentence)) => {
            eprintln!("driver-tracker: {sentence}");
            ExitCode::from(code)
        }
    }
}

/// An exit code and the error message.
type Failure = (u8, String);

fn passing(error: impl std::fmt::Display) -> Failure {
    (1, error.to_string())
}

fn run(invocation: Invocation) -> Result<(), Failure> {
    match invocation {
        Invocation::Serve(config) => serve(*config),
        Invocation::Migrate(config) => {
            start_logging(&config.log, LogOutput::Stderr)?;
            in_system(commands::migrate(config)).map_err(passing)
        }
        Invocation::ApiKey(command, config) => {
            start_logging(&config.log, LogOutput::Stderr)?;
            in_system(commands::api_key(command, config)).map_err(passing)
        }
        Invocation::Events(command, config) => {
            start_logging(&config.log, LogOutput::Stderr)?;
            in_system(commands::events::run(command, config)).map_err(passing)
        }
        Invocation::Doctor(args, config) => {
            start_logging(&config.log, LogOutput::Stderr).map_err(|(_, sentence)| (NOT_COMPARED, sentence))?;
            in_system(doctor(args, config))
        }
        Invocation::CheckConfig(check) => {
            println!("{}", check.report);
            check.problems.map_or(Ok(()), |problems| Err((2, problems.to_string())))
        }
        #[cfg(feature = "dev")]
        Invocation::Simulate(matches) => in_system(dev::simulate_command(&matches)),
        #[cfg(feature = "dev")]
        Invocation::Dev(args) => in_system(dev::run(args)).map_err(|error| (error.exit_code(), error.to_string())),
        #[cfg(not(feature = "dev"))]
        Invocation::Simulate(_) | Invocation::Dev(_) => Err((2, NOT_IN_THIS_BUILD.to_owned())),
    }
}

/// The error of `dev` and `simulate` in a production build.
#[cfg(not(feature = "dev"))]
const NOT_IN_THIS_BUILD: &str =
    "this is a production build, without `dev` and `simulate`: build it with the Cargo feature `dev` to have them";

/// The exit code of `doctor` when it could not compare. Exit code 1 means that the stores differ.
const NOT_COMPARED: u8 = 2;

async fn doctor(args: DoctorArgs, config: DoctorConfig) -> Result<(), Failure> {
    match commands::doctor::examine(&args, &config).await {
        Ok(found) => {
            println!("{}", if args.as_json { found.to_json().to_string() } else { found.to_text() });
            if found.is_same() { Ok(()) } else { Err((1, "Redis and PostgreSQL differ".to_owned())) }
        }
        Err(error) => {
            if args.as_json {
                println!("{}", serde_json::json!({"same": null, "error": error.to_string()}));
            }
            Err((NOT_COMPARED, format!("Redis and PostgreSQL could not be compared: {error}")))
        }
    }
}

fn in_system<T>(work: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(work)
}

fn start_logging(config: &LogConfig, output: LogOutput) -> Result<(), Failure> {
    telemetry::init_logging(config, output).map_err(passing)
}

fn serve(config: Config) -> Result<(), Failure> {
    start_logging(&config.log, LogOutput::Stdout)?;
    let metrics = telemetry::init_metrics().map_err(passing)?;
    let background = background_runtime().map_err(passing)?;
    let served = in_system(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let starting = Service::start(config, metrics, background.handle().clone());
        let service = tokio::select! {
            started = starting => started?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::select! {
            () = service.stop() => {}
            // A second signal ends the process at once. No durable data is lost.
            _ = terminate.recv() => tracing::warn!("ended at once by a second signal"),
            _ = interrupt.recv() => tracing::warn!("ended at once by a second signal"),
        }
        Ok::<(), StartError>(())
    });
    background.shutdown_background();
    served.map_err(|error| (error.exit_code(), error.to_string()))
}
