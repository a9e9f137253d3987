//! Snapshots: each is the state at its index, with the membership there (P1); it takes nothing away (P2); and a log begins
//! later only when one is durable (P3).

use quorate_core::{Rebase, SendSnapshot, Snapshot};

use super::Ghost;
use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

impl Ghost {
    /// Is this a point of the committed log?
    fn check_point(&self, slot: usize, what: &str, snapshot: &Snapshot) -> Verdict {
        let (n, last) = (slot + 1, snapshot.last);
        let stone = self.committed.get(last.index.0);
        hold!(
            stone.is_some_and(|stone| stone.term == last.term.0),
            "P1",
            "node {n} {what} {last}, which is not committed"
        );
        let (since, membership) = self.committed.membership_at(last.index.0);
        hold!(
            snapshot.membership == **membership,
            "P1",
            "node {n} {what} {last} with {:?}, but {membership:?} is in force there, since {since}",
            snapshot.membership
        );
        Ok(())
    }

    /// A log is to begin later.
    pub(super) fn check_rebase(
        &self,
        slot: usize,
        rebase: &Rebase,
        leads: bool,
        counts: &mut Counts,
    ) -> Verdict {
        let (n, images) = (slot + 1, &self.nodes[slot]);
        match rebase {
            Rebase::Compact(snapshot) => {
                counts.bump(Count::Compactions);
                self.check_point(slot, "compacts up to", snapshot)?;
                let index = snapshot.last.index.0;
                hold!(
                    index <= images.applied,
                    "P3",
                    "node {n} compacts up to {index}, which it hasn't applied"
                );
                Ok(())
            }
            Rebase::Install(snapshot) => {
                counts.bump(Count::Installs);
                self.check_point(slot, "installs", snapshot)?;
                let last = snapshot.last;
                hold!(!leads, "S3", "node {n} replaces its log up to {last} in the term that it leads");
                hold!(
                    last.index.0 > images.commit,
                    "P2",
                    "node {n} installs {last}, though it knows {} to be committed",
                    images.commit
                );
                let matches = images.live.get(last.index.0).is_some_and(|stone| stone.term == last.term.0);
                hold!(
                    !matches,
                    "P2",
                    "node {n} installs {last} and throws away a log that has that very entry"
                );
                Ok(())
            }
        }
    }

    /// A node's disk holds a snapshot at `snapshot`, and nothing newer.
    pub(crate) fn on_durable_snapshot(&mut self, slot: usize, snapshot: u64) -> Verdict {
        let images = &mut self.nodes[slot];
        let n = slot + 1;
        hold!(
            snapshot >= images.snapshot,
            "S7",
            "the newest snapshot of node {n} goes back from {} to {snapshot}",
            images.snapshot
        );
        images.snapshot = snapshot;
        let base = images.durable.base();
        hold!(
            base <= snapshot,
            "P3",
            "the log of node {n} begins after {base}, but its newest durable snapshot is at {snapshot}"
        );
        Ok(())
    }

    /// A state machine is to take up a snapshot.
    pub(super) fn on_restore(&mut self, slot: usize, snapshot: &Snapshot) -> Verdict {
        self.check_point(slot, "restores", snapshot)?;
        let (n, index) = (slot + 1, snapshot.last.index.0);
        let images = &mut self.nodes[slot];
        hold!(
            images.durable.base() >= index && images.snapshot >= index,
            "P3",
            "node {n} restores a snapshot at {index} before that is durable and adopted"
        );
        hold!(
            index > images.applied,
            "P2",
            "node {n} restores a snapshot at {index} after it applied {}",
            images.applied
        );
        images.applied = index;
        Ok(())
    }

    pub(super) fn on_send_snapshot(&mut self, slot: usize, send: &SendSnapshot) -> Verdict {
        let quorate_core::Body::InstallSnapshot { snapshot } = &send.message.body else {
            hold!(false, "P1", "node {} announces a snapshot by {:?}", slot + 1, send.message.body);
            return Ok(());
        };
        self.check_point(slot, "sends", snapshot)?;
        let newest = self.nodes[slot].snapshot;
        hold!(
            snapshot.last.index.0 <= newest,
            "P3",
            "node {} sends a snapshot at {}, but its newest is at {newest}",
            slot + 1,
            snapshot.last
        );
        self.check_claims(slot, send.to, &send.message)
    }
}
