//! `quorate backup`: the state of a running cluster, in a file.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_coord::pb::etcdserverpb::{
    SnapshotRequest, SnapshotResponse, maintenance_client::MaintenanceClient,
};
use ring::digest;
use tonic::Streaming;

use super::{
    Failure, Result,
    archive::Backup,
    client::{self, Common, Kind},
    failure::Context as _,
};

const EXAMPLES: &str = "\
The file holds all keys with their history since the last compaction, and every
write that was acknowledged before the command began. Any node can be asked; it
serves others meanwhile. What is in the file is not encrypted.

It is written as FILE.partial, checked (its SHA-256, and the checksums in it),
made durable, and only then called FILE. --timeout is for an answer to begin.

Examples:
  quorate backup coord.backup
  quorate backup /backups/$(date +%F).backup --endpoints 10.0.0.1:2379,10.0.0.2:2379
  quorate backup --force latest.backup --json | jq .revision
  quorate inspect coord.backup             look at it again, and check it
  quorate restore --help                   what it is good for";

/// `quorate backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to write it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

/// So long nothing may come once it has begun. A node with much state counts it first.
const SILENCE: Duration = Duration::from_secs(60);

/// Bytes of a SHA-256.
const SHA: usize = 32;

/// Asks for it, and writes it down.
pub(crate) async fn run(args: Args) -> Result {
    let Args { file, force, common } = args;
    refuse_existing(&file, force)?;
    let stream = common
        .endpoints
        .ask(Kind::Read, common.timeout, &SnapshotRequest {}, |channel, request| async move {
            MaintenanceClient::new(channel).snapshot(request).await
        })
        .await?;
    let partial = Partial::create(&file)?;
    receive(stream, &partial).await?;
    let backup = Backup::check(&partial.path)?;
    refuse_existing(&file, force)?;
    partial.publish(&file)?;
    if common.json {
        return client::print_json(&backup.json(&file));
    }
    client::print(format!("written to {}\n{}", file.display(), backup.text()).as_bytes())
}

fn refuse_existing(file: &Path, force: bool) -> Result {
    if !force && fs::symlink_metadata(file).is_ok() {
        let file = file.display();
        return Err(Failure::new(format!(
            "{file} is there already: name another file, or replace it with --force"
        )));
    }
    Ok(())
}

async fn receive(mut stream: Streaming<SnapshotResponse>, partial: &Partial) -> Result {
    let cut =
        |why: &str| Failure::new(format!("the backup was cut short: {why}; nothing is kept. Try again"));
    let mut sha = digest::Context::new(&digest::SHA256);
    // The last bytes that came are the SHA-256 of all before, or will turn out not to be.
    let mut held: Vec<u8> = Vec::new();
    loop {
        let message = tokio::time::timeout(SILENCE, stream.message()).await;
        let message = message.map_err(|_| cut(&format!("nothing came for {} s", SILENCE.as_secs())))?;
        let Some(message) = message.map_err(|status| cut(status.message()))? else { break };
        held.extend_from_slice(&message.blob);
        let sure = held.len().saturating_sub(SHA);
        let (before, _) = held.split_at(sure);
        sha.update(before);
        partial.write(before)?;
        held.drain(..sure);
    }
    if held.len() < SHA {
        return Err(cut("the connection ended"));
    }
    if sha.finish().as_ref() != held {
        return Err(cut("its SHA-256 is not the one that was sent with it"));
    }
    partial.sync()
}

/// A file that is not whole yet, and is removed unless it comes to be.
struct Partial {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Partial {
    /// Next to what it is to become. What is left of an earlier attempt is overwritten.
    fn create(file: &Path) -> Result<Self> {
        let mut name = file
            .file_name()
            .map(OsString::from)
            .ok_or_else(|| Failure::new(format!("{} is no name for a file", file.display())))?;
        name.push(".partial");
        let path = file.with_file_name(name);
        let file = File::create(&path).context(format_args!("can't write {}", path.display()))?;
        Ok(Self { path, file, published: false })
    }

    fn write(&self, bytes: &[u8]) -> Result {
        (&self.file).write_all(bytes).context(format_args!("can't write {}", self.path.display()))
    }

    fn sync(&self) -> Result {
        self.file.sync_all().context(format_args!("can't write {}", self.path.display()))
    }

    /// It is whole, and durable: gives it its name, and makes that durable too.
    fn publish(mut self, file: &Path) -> Result {
        fs::rename(&self.path, file).context(format_args!("can't rename to {}", file.display()))?;
        self.published = true;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.context(format_args!("{} is written, but may not be durable", file.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published {
            let _gone = fs::remove_file(&self.path);
        }
    }
}
