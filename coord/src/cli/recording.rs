//! The flight recorder's flags, and copies of what it has on request.

use std::path::PathBuf;

use quorate_coord::machine::Machine;
use quorate_runtime_tokio::{Node, Payloads, Recording};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::{Result, failure::Context as _};

/// How a node is recorded.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RecordArgs {
    /// Record all that the node's core is told, in this directory, for `quorate-sim flight`: see below
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Record what it did as well, not only a digest of that: several times as big
    #[arg(long, requires = "record")]
    record_actions: bool,
}

/// What `quorate dev` has as well.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// How many bytes of it are kept: the oldest go first
    #[arg(long, value_name = "BYTES", requires = "record", default_value_t = 64 << 20,
          value_parser = clap::value_parser!(u64).range(64 << 10..))]
    record_bytes: u64,
    /// Leave out what clients have written: only how long it is
    #[arg(long, requires = "record")]
    record_redact: bool,
}

impl RecordArgs {
    /// The recorder, if one is wanted.
    pub(crate) fn recording(&self) -> Option<Recording> {
        let Self { record, how: How { record_bytes, record_redact }, record_actions } = self;
        let payloads = if *record_redact { Payloads::LeftOut } else { Payloads::Kept };
        let recording = Recording::to_dir(record.as_ref()?);
        Some(recording.max_bytes(*record_bytes).payloads(payloads).actions(*record_actions))
    }

    /// Watches for requests of copies: from now on SIGUSR1 doesn't end the process, whether anything is recorded or not.
    ///
    /// # Errors
    /// If signals can't be handled.
    pub(crate) fn requests(&self) -> Result<Requests> {
        let asked = signal(SignalKind::user_defined1()).context("can't handle signals")?;
        Ok(Requests { dir: self.record.clone(), asked })
    }
}

impl How {
    /// The flags of `quorate serve` that say the same.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--record-bytes".to_owned(), self.record_bytes.to_string()];
        flags.extend(self.record_redact.then(|| "--record-redact".to_owned()));
        flags
    }
}

/// Somebody may want a copy: SIGUSR1.
pub(crate) struct Requests {
    /// Where the recording is, if there is one.
    dir: Option<PathBuf>,
    asked: Signal,
}

impl Requests {
    /// Makes one whenever it is asked for, or has been since the watch began.
    pub(crate) async fn serve(mut self, node: Node<Machine>) {
        while self.asked.recv().await.is_some() {
            let Some(dir) = &self.dir else {
                info!("SIGUSR1: this node records nothing, so there is nothing to copy (see --record)");
                continue;
            };
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let to = dir.join(format!("dump-{}", since.unwrap_or_default().as_millis()));
            match node.dump_recording(&to).await {
                Ok(dump) => {
                    let (segments, bytes) = (dump.segments, dump.bytes);
                    info!(dir = %to.display(), segments, bytes, "the recording was copied");
                }
                Err(why) => error!(%why, "the recording was not copied"),
            }
        }
    }
}
