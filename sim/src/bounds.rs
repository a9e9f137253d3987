//! Every queue and buffer stays within its documented bound (B1).

use quorate_core::{Action, Apply, Body, Config, ENTRY_HEADER, NodeId, Run, Status, Write};

use crate::{
    lab::Lab,
    node::{Process, Work},
    violation::{Broken, Verdict, hold},
};

impl Lab {
    /// What a node holds, as it says itself.
    pub(crate) fn check_bounds(&self, slot: usize) -> Verdict {
        let Some(process) = &self.nodes[slot].process else { return Ok(()) };
        let status = process.raft.status();
        check_status(&status, &self.setup.config, self.ghost.open_requests(slot))?;
        hold!(
            status.clock_regressions == process.told.regressions,
            "contract",
            "node {}'s clock went back {} times, but it counts {}",
            status.id,
            process.told.regressions,
            status.clock_regressions
        );
        // Nothing is under way where everything is done.
        let handed = process.raft.handed() >= status.last.index;
        hold!(
            !handed || status.uncommitted_bytes == 0,
            "B1",
            "node {} has handed out everything, but counts {} bytes as uncommitted",
            status.id,
            status.uncommitted_bytes
        );
        Ok(())
    }

    /// What a node hands out: no more of it at once than was asked for, but for what comes in one piece.
    pub(crate) fn check_size(&self, slot: usize, action: &Action) -> Verdict {
        match action {
            Action::Send { message, .. } => match &message.body {
                Body::Append { entries, .. } => {
                    check_append(slot as u64 + 1, &self.setup.config, entries.as_slice())
                }
                Body::PreVote { .. }
                | Body::PreVoteReply { .. }
                | Body::Vote { .. }
                | Body::VoteReply { .. }
                | Body::Appended { .. }
                | Body::Conflict { .. }
                | Body::Heartbeat { .. }
                | Body::HeartbeatReply { .. }
                | Body::Commit { .. }
                | Body::ReadIndex { .. }
                | Body::ReadIndexReply { .. }
                | Body::TimeoutNow
                | Body::InstallSnapshot { .. } => Ok(()),
            },
            Action::Write(write) => self.check_write(slot, write),
            Action::Apply(apply) => self.check_apply(slot, apply),
            Action::Restore(_)
            | Action::SendSnapshot(_)
            | Action::Load(_)
            | Action::Resolve { .. }
            | Action::Event(_) => Ok(()),
        }
    }

    fn check_write(&self, slot: usize, write: &Write) -> Verdict {
        let waiting = self.processes(slot).flat_map(|process| &process.writes).map(Write::bytes).sum();
        check_write(slot as u64 + 1, &self.setup.config, write, waiting)
    }

    fn check_apply(&self, slot: usize, apply: &Apply) -> Verdict {
        let handed: usize = self
            .processes(slot)
            .flat_map(|process| &process.work)
            .map(|work| match work {
                Work::Apply(apply) => bytes_of(apply.entries.as_slice()),
                Work::Restore(..) => 0,
            })
            .sum();
        check_apply(slot as u64 + 1, &self.setup.config, apply, handed).map(drop)
    }

    fn processes(&self, slot: usize) -> impl Iterator<Item = &Process> {
        self.nodes[slot].process.iter()
    }
}

/// What a node holds, as it says itself; `open`: how many requests other than reads it has taken and not resolved.
pub(crate) fn check_status(status: &Status, config: &Config, open: u64) -> Verdict {
    let n: NodeId = status.id;
    let at_most = |what: &str, held: u64, bound: usize| {
        hold!(held <= bound as u64, "B1", "node {n} has {held} {what}, but {bound} is the bound");
        Ok(())
    };
    at_most("uncommitted bytes", status.uncommitted_bytes, config.max_uncommitted_bytes)?;
    at_most("messages parked", status.parked, 257)?;
    // What is not durable stays, however much that is.
    let cached = config.max_cached_bytes.max(status.unpersisted_bytes as usize);
    at_most("cached bytes", status.cached_bytes, cached)?;
    hold!(
        status.pending >= open,
        "T1",
        "node {n} has {} requests open, but took {open} other than reads that it has not resolved",
        status.pending
    );
    // As many again may wait for an index that never comes.
    at_most("reads open", status.pending - open, 2 * config.max_reads)?;
    for peer in &status.peers {
        at_most("messages under way to a peer", peer.inflight_messages, config.max_inflight_messages)?;
        let bytes = config.max_inflight_bytes + config.max_append_bytes + 4096;
        at_most("bytes under way to a peer", peer.inflight_bytes, bytes)?;
    }
    Ok(())
}

/// What node `n` sends at once.
pub(crate) fn check_append(n: u64, config: &Config, entries: &[Run]) -> Verdict {
    let (bytes, bound) = (bytes_of(entries), config.max_append_bytes);
    hold!(
        bytes <= bound || is_single(entries),
        "B1",
        "node {n} sends {bytes} bytes in one append, but {bound} is the bound"
    );
    Ok(())
}

/// What comes on top of something that is not durable yet must fit, but for the entry with which a leader begins, and
/// memberships: there is never more than one of those under way.
pub(crate) fn check_write(n: u64, config: &Config, write: &Write, waiting: usize) -> Verdict {
    let (bytes, bound) = (write.bytes(), config.max_unpersisted_bytes);
    let own = write.entries.iter().all(|run| run.count() == 1 && run.has_membership());
    hold!(
        bytes <= ENTRY_HEADER || own || waiting == 0 || waiting + bytes <= bound,
        "B1",
        "node {n} writes {bytes} bytes while {waiting} are not durable, but {bound} is the bound"
    );
    Ok(())
}

/// What node `n` hands out, `handed` bytes of which are not applied yet; returns how many bytes come on top.
pub(crate) fn check_apply(n: u64, config: &Config, apply: &Apply, handed: usize) -> Result<usize, Broken> {
    let (bytes, bound) = (bytes_of(apply.entries.as_slice()), config.max_applying_bytes);
    let fits = handed + bytes <= bound || handed < bound && is_single(apply.entries.as_slice());
    hold!(
        fits,
        "B1",
        "node {n} hands out {bytes} bytes while {handed} are not applied, but {bound} is the bound"
    );
    Ok(bytes)
}

fn bytes_of(runs: &[Run]) -> usize {
    runs.iter().map(Run::bytes).sum()
}

fn is_single(runs: &[Run]) -> bool {
    runs.iter().map(Run::count).sum::<u64>() == 1
}
