//! What a node writes about itself.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{Failure, Result};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one object a line
    Json,
}

/// Logs to stderr from now on: what `RUST_LOG` asks for, or else everything from `info` up.
///
/// # Errors
/// If `RUST_LOG` can't be read.
pub(crate) fn start(format: LogFormat) -> Result {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Failure::new(format!("RUST_LOG=\"{text}\": {error}")))?,
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    // Whoever reads stderr may be gone, which must not end a node: nothing is said about it there.
    let layer = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            registry.with(layer.with_target(false).with_ansi(ansi)).init();
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
    Ok(())
}
