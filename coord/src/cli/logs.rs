//! What a node writes about itself.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::{Failure, Result, otel::Otel};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one object a line
    Json,
}

/// Logs to stderr from now on: what `RUST_LOG` asks for, or else everything from `info` up. Spans go to `otel` as well,
/// whatever is logged.
///
/// # Errors
/// If `RUST_LOG` can't be read.
pub(crate) fn start(format: LogFormat, otel: Option<&Otel>) -> Result {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Failure::new(format!("RUST_LOG=\"{text}\": {error}")))?,
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    // Whoever reads stderr may be gone, which must not end a node: nothing is said about it there.
    let layer = fmt::layer::<Registry>().with_writer(io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            layer.with_target(false).with_ansi(ansi).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    // The filter is that of the lines alone.
    let mut layers = vec![lines.with_filter(filter).boxed()];
    layers.extend(otel.map(Otel::layer));
    tracing_subscriber::registry().with(layers).init();
    Ok(())
}
