//! What a backup holds, as several commands tell it.

use std::path::Path;

use quorate_coord::{
    machine::{Machine, SnapshotHead},
    pb::command::ForcedRecovery,
};
use quorate_core::{LogId, Membership, NodeId, SnapshotInfo};
use quorate_runtime_tokio::SnapshotSource;
use quorate_storage_redb::{ArchiveHeader, ArchiveReader};
use serde_json::{Value, json};

use super::{Failure, Result, client::size, config::cluster_id, failure::Context as _};

/// A backup whose every checksum was right.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) header: ArchiveHeader,
    pub(crate) info: SnapshotInfo,
    pub(crate) head: SnapshotHead,
    pub(crate) recoveries: Vec<ForcedRecovery>,
    /// How long the file is.
    bytes: u64,
}

impl Backup {
    /// Reads all of it.
    ///
    /// # Errors
    /// If it can't be read, is damaged, or is no backup of a key-value store.
    pub(crate) fn check(path: &Path) -> Result<Self> {
        let mut reader = open(path)?;
        let info = reader.verify().map_err(|error| Failure::new(format!("{error}. {OTHER}")))?;
        let header = reader.header().clone();
        let (head, recoveries) = SnapshotHead::read_with_recoveries(&mut SnapshotSource::new(reader))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let metadata = std::fs::metadata(path).context(path.display())?;
        Ok(Self { header, info, head, recoveries, bytes: metadata.len() })
    }

    /// A line for each fact.
    pub(crate) fn text(&self) -> String {
        let Self { header, info, head, recoveries, bytes } = self;
        let mut text = format!(
            "revision   {}{}\nkeys       {}, those included that are deleted and not compacted\n\
             log id     {}\ncluster    {}, taken by node {}\nmembers    {}\nsize       {}, of it state {}\n",
            head.revision,
            compacted(head.compacted),
            head.keys,
            log_id(header.snapshot.last),
            cluster_id::show_wide(header.identity.cluster),
            header.identity.node,
            members(&header.snapshot.membership),
            bytes_text(*bytes),
            bytes_text(info.bytes),
        );
        for forced in recoveries {
            text.push_str(&format!("RECOVERED  {}\n", recovery(forced)));
        }
        text.push_str("checksums  all right\n");
        text
    }

    /// The same for programs.
    pub(crate) fn json(&self, path: &Path) -> Value {
        let Self { header, info, head, recoveries, bytes } = self;
        json!({
            "kind": "backup",
            "file": path.display().to_string(),
            "file_bytes": bytes,
            "cluster": cluster_id::show_wide(header.identity.cluster),
            "node": header.identity.node.to_string(),
            "group": header.group.to_string(),
            "at": log_id_json(header.snapshot.last),
            "membership": members_json(&header.snapshot.membership),
            "state_bytes": info.bytes,
            "checksum": format!("{:08x}", info.checksum),
            "revision": head.revision,
            "compacted": head.compacted,
            "keys": head.keys,
            "recoveries": recoveries.iter().map(recovery_json).collect::<Vec<_>>(),
        })
    }
}

const OTHER: &str = "Take another backup, or use an older one";

/// Opens a backup.
///
/// # Errors
/// If it can't be read, or is not whole.
pub(crate) fn open(path: &Path) -> Result<ArchiveReader> {
    ArchiveReader::open(path).map_err(|error| Failure::new(format!("{error}. {OTHER}")))
}

/// The state in it, in memory.
///
/// # Errors
/// If it is none that this release knows, or is damaged.
pub(crate) fn machine(reader: ArchiveReader) -> Result<Machine, String> {
    Machine::read_snapshot(&mut SnapshotSource::new(reader)).map_err(|error| error.to_string())
}

/// `, compacted at 7`, if it was.
pub(crate) fn compacted(revision: i64) -> String {
    if revision < 0 { String::new() } else { format!(", compacted at {revision}") }
}

/// An entry's place, for people.
pub(crate) fn log_id(id: LogId) -> String {
    format!("index {} of term {}", id.index, id.term)
}

pub(crate) fn log_id_json(id: LogId) -> Value {
    json!({ "term": id.term.0, "index": id.index.0 })
}

/// A membership, for people.
pub(crate) fn members(membership: &Membership) -> String {
    let mut text = format!("voters {}", ids(membership.voters()));
    for (what, who) in [
        (", outgoing voters ", membership.outgoing()),
        (", learners ", membership.learners()),
        (", joining ", membership.joining()),
    ] {
        if !who.is_empty() {
            text.push_str(what);
            text.push_str(&ids(who));
        }
    }
    text
}

pub(crate) fn members_json(membership: &Membership) -> Value {
    let ids = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "voters": ids(membership.voters()),
        "voters_outgoing": ids(membership.outgoing()),
        "learners": ids(membership.learners()),
    })
}

/// `1, 2, 3`
pub(crate) fn ids<T: ToString>(ids: &[T]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A forced recovery, for people.
pub(crate) fn recovery(recovery: &ForcedRecovery) -> String {
    let ForcedRecovery { node, old_cluster, new_cluster, last_term, last_index, .. } = recovery;
    let mut before = format!("voters {}", ids(&recovery.voters));
    if !recovery.voters_outgoing.is_empty() {
        before.push_str(&format!(" and {}", ids(&recovery.voters_outgoing)));
    }
    if !recovery.learners.is_empty() {
        before.push_str(&format!(", learners {}", ids(&recovery.learners)));
    }
    format!(
        "node {node} went on alone from index {last_index} of term {last_term} as cluster {}; before that cluster {}, {before}",
        cluster_id::show(*new_cluster),
        cluster_id::show(*old_cluster),
    )
}

pub(crate) fn recovery_json(recovery: &ForcedRecovery) -> Value {
    let ids = |ids: &[u64]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "node": recovery.node.to_string(),
        "old_cluster": cluster_id::show(recovery.old_cluster),
        "new_cluster": cluster_id::show(recovery.new_cluster),
        "voters": ids(&recovery.voters),
        "voters_outgoing": ids(&recovery.voters_outgoing),
        "learners": ids(&recovery.learners),
        "last": { "term": recovery.last_term, "index": recovery.last_index },
    })
}

/// Bytes, for people.
pub(crate) fn bytes_text(bytes: u64) -> String {
    size(i64::try_from(bytes).unwrap_or(i64::MAX))
}
