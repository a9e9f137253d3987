//! Writes, made without a protocol above them.

use anyhow::{Result, anyhow};
use quorate_core::{
    GroupId, Incarnation, Index, LogId, Membership, NodeId, Rebase, Run, Snapshot, Term, Write,
};

use super::payload;

/// All entries are of this term.
pub(super) const TERM: Term = Term(1);

/// Mints the writes of one group.
#[derive(Debug)]
pub(super) struct Mint {
    pub(super) group: GroupId,
    incarnation: Incarnation,
    seq: u64,
    /// The next entry.
    pub(super) next: u64,
}

impl Mint {
    /// For a group that was just recovered with a log up to `last`.
    pub(super) fn new(group: GroupId, incarnation: Incarnation, last: Index) -> Self {
        Self { group, incarnation, seq: 1, next: last.0 + 1 }
    }

    fn empty(&mut self) -> Result<Write> {
        let write = serde_json::from_value(serde_json::json!({
            "hard_state": null, "rebase": null, "truncate": null, "entries": [],
            "receipt": {
                "group": self.group, "incarnation": self.incarnation, "first": self.seq, "last": self.seq
            },
        }))?;
        self.seq += 1;
        Ok(write)
    }

    /// Appends so many entries.
    pub(super) fn entries(&mut self, entries: usize, bytes: usize) -> Result<Write> {
        let payloads: Vec<_> = (self.next..self.next + entries as u64).map(|n| payload(n, bytes)).collect();
        let mut write = self.empty()?;
        let run = Run::commands(TERM, Index(self.next), &payloads).ok_or_else(|| anyhow!("no entries"))?;
        write.entries.push(run);
        self.next += entries as u64;
        Ok(write)
    }

    /// Removes the entries up to this one.
    pub(super) fn compact(&mut self, up_to: Index) -> Result<Write> {
        let mut write = self.empty()?;
        write.rebase = Some(Box::new(Rebase::Compact(snapshot(up_to))));
        Ok(write)
    }
}

/// A snapshot there.
pub(super) fn snapshot(at: Index) -> Snapshot {
    Snapshot { last: LogId::new(TERM, at), membership: Membership::of_voters([NodeId(1)]) }
}
