//! Sets up the log: pretty lines for people, or one JSON object a line for programs.

use std::io::IsTerminal;

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::TelemetryError;
use crate::config::{LogConfig, LogFormat};

/// Libraries whose `info` lines are not useful here. `RUST_LOG` may name them to show more.
const QUIETED: &str = "sqlx=warn,hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,rustls=warn,redis=warn,actix_server=warn,\
                       actix_http=warn,tungstenite=warn,tokio_tungstenite=warn,mio=warn";

/// Where log lines go.
#[derive(Debug)]
pub enum LogOutput {
    /// Standard output: the service.
    Stdout,
    /// Standard error: commands whose standard output is their result, such as `api-key`.
    Stderr,
    /// A file: `dev`, whose standard output shows what happens.
    File(std::fs::File),
}

/// Sets up the log for the whole process. May be called once.
pub fn init_logging(config: &LogConfig, output: LogOutput) -> Result<(), TelemetryError> {
    let terminal = match &output {
        LogOutput::Stdout => std::io::stdout().is_terminal(),
        LogOutput::Stderr => std::io::stderr().is_terminal(),
        LogOutput::File(_) => false,
    };
    let pretty = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let filter = filter(&config.filter)?;
    let dispatch = match output {
        LogOutput::Stdout => dispatch(filter, pretty, terminal, std::io::stdout),
        LogOutput::Stderr => dispatch(filter, pretty, terminal, std::io::stderr),
        LogOutput::File(file) => dispatch(filter, pretty, terminal, std::sync::Mutex::new(file)),
    };
    Ok(dispatch.try_init()?)
}

/// Puts the quiet libraries first, so that the operator's directives override them.
fn filter(directives: &str) -> Result<EnvFilter, TelemetryError> {
    Ok(EnvFilter::builder().parse(format!("{QUIETED},{directives}"))?)
}

fn dispatch<W>(filter: EnvFilter, pretty: bool, color: bool, writer: W) -> Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // With `trace` the log shows which functions a heartbeat or an order passes.
    let is_tracing = filter.max_level_hint() == Some(LevelFilter::TRACE);
    let spans = if is_tracing { FmtSpan::NEW } else { FmtSpan::NONE };
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(color).with_span_events(spans);
    if pretty {
        return lines.finish().into();
    }
    // Fields are on the same level as the message. Only the innermost span is written, which holds the request's id.
    lines.json().flatten_event(true).with_span_list(false).finish().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(directives: &str, pretty: bool, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let sink = buffer.clone();
        let dispatch = dispatch(filter(directives).unwrap(), pretty, false, move || sink.clone());
        tracing::dispatcher::with_default(&dispatch, log);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_hold_message_fields_and_span() {
        let text = written("info", false, || {
            let _span = tracing::info_span!("request", request.id = "r1").entered();
            tracing::info!(driver.id = "d1", "driver went on duty");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "driver went on duty");
        assert_eq!(line["driver.id"], "d1");
        assert_eq!(line["span"]["request.id"], "r1");
    }

    #[test]
    fn noisy_libraries_are_quiet_until_they_are_named() {
        let log = || {
            tracing::info!(target: "sqlx::query", "noise");
            tracing::info!("ours");
        };
        let quiet = written("info", true, log);
        assert!(quiet.contains("ours") && !quiet.contains("noise"), "{quiet}");
        assert!(written("info,sqlx=info", true, log).contains("noise"));
        assert!(!written("warn", true, log).contains("ours"));
    }
}
