//! The client commands.

mod endpoints;
mod kv;
mod output;
mod overview;
mod requests;
mod text;
mod txn;

use std::time::Duration;

pub(crate) use endpoints::{Endpoint, Endpoints, Kind};
pub(crate) use kv::{DelCommand, GetCommand, PutCommand, TxnCommand};
pub(crate) use output::{print, print_json, table};
pub(crate) use overview::{MembersCommand, StatusCommand, size};

/// What every client command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Where the nodes serve clients: URLs or HOST:PORT, tried in this order
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINTS",
        value_name = "A,B,C",
        default_value = "http://127.0.0.1:2379"
    )]
    pub(crate) endpoints: Endpoints,

    /// Print JSON: one object on one line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Give up after this many seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// Parses seconds, as in `5` or `0.5`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("\"{text}\" is not a number of seconds"))?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("from 0.001 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}
