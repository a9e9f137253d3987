//! What a driver's threads do: make writes durable, answer questions to the log, apply entries.

use quorate_core::{Done, Input, Instant, Receipt, Write};

use super::Lab;
use crate::{
    node::Work,
    stats::Count,
    violation::{Broken, Verdict, hold},
    watch::Seen,
};

impl Lab {
    // ---- the disk ----

    /// A write reaches the disk, though its process is gone.
    pub(super) fn make_durable(&mut self, slot: usize, write: &Write) -> Verdict {
        self.nodes[slot].disk.apply(write)?;
        self.note_durable(slot, write)
    }

    fn note_durable(&mut self, slot: usize, write: &Write) -> Verdict {
        let newest = self.nodes[slot].disk.newest();
        // Whoever looks on sees it before it is judged.
        self.see(&Seen::Durable { slot, write })?;
        self.ghost.on_durable(slot, write, newest)
    }

    /// The oldest writes are durable, in one commit, and the core hears of that.
    pub(super) fn persist(&mut self, slot: usize, now: Instant, count: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        let count = count.min(process.writes.len());
        let Ok(done) = node.disk.commit(&process.writes.make_contiguous()[..count]) else {
            return self.storage_failed(slot, now);
        };
        done?;
        let writes: Vec<Write> = process.writes.drain(..count).collect();
        let failed = self.nodes[slot].disk.has_failed();
        hold!(!failed, "D4", "node {}'s store commits {count} writes after a sync has failed", slot + 1);
        let mut merged: Option<Receipt> = None;
        for write in writes {
            self.note_durable(slot, &write)?;
            let receipt = write.into_receipt();
            merged = Some(match merged {
                None => receipt,
                Some(before) => Receipt::merge(before, receipt)
                    .map_err(|_| Broken("contract", "receipts of consecutive writes don't merge".into()))?,
            });
        }
        match merged {
            Some(receipt) => self.step(slot, now, 0, Input::Persisted(receipt)),
            None => Ok(()),
        }
    }

    /// A sync fails, in the middle of a commit.
    pub(super) fn disk_fails(&mut self, slot: usize, now: Instant, count: usize) -> Verdict {
        self.tell(&[slot], || format!("n{}: its disk fails at {count} writes", slot + 1))?;
        self.counts.bump(Count::DiskFailures);
        self.nodes[slot].disk.fail();
        self.persist(slot, now, count)
    }

    /// A commit has failed. Some of it may be durable, as a crash will tell; the process is told that, and must be silent from
    /// then on, whatever comes.
    fn storage_failed(&mut self, slot: usize, now: Instant) -> Verdict {
        self.ghost.on_disk_failed(slot);
        self.step(slot, now, 0, Input::StorageFailed)?;
        let life = self.nodes[slot].life;
        self.ghost.all_resolved(|other| (other == slot).then_some(life))
    }

    /// An open question to the log is answered.
    pub(super) fn load(&mut self, slot: usize, now: Instant, nth: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        if nth >= process.loads.len() {
            return Ok(());
        }
        let load = process.loads.remove(nth);
        let result = node.disk.load(&load);
        self.step(slot, now, 0, Input::Loaded { id: load.id, result })
    }

    // ---- the state machine ----

    /// The state machine is done with the oldest that it was handed.
    pub(super) fn apply(&mut self, slot: usize, now: Instant) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        let Some(work) = process.work.pop_front() else { return Ok(()) };
        let restored = matches!(work, Work::Restore(..));
        let up_to = match work {
            // The observer has seen that these are the entries that were committed.
            Work::Apply(apply) => {
                process.machine = (apply.last().0, self.ghost.state_at(apply.last().0).unwrap_or_default());
                let token_of = |index: u64| {
                    let mut done = apply.done.iter();
                    let has =
                        |done: &&Done| (done.first.0..done.first.0 + done.tokens.count).contains(&index);
                    done.find(has).map(|done| done.tokens.first.0 + (index - done.first.0))
                };
                self.apply_runs(slot, apply.entries.as_slice(), token_of)?;
                apply.last()
            }
            Work::Restore(snapshot, picture) => {
                self.counts.bump(Count::Restores);
                let index = snapshot.last.index;
                let (state, body) = picture.map(|picture| (picture.state, picture.body)).unzip();
                hold!(
                    state.is_some() && state == self.ghost.state_at(index.0),
                    "P1",
                    "node {} restores {snapshot:?}, whose state {state:?} is not the one at its index",
                    slot + 1
                );
                process.machine = (index.0, state.unwrap_or_default());
                self.restore_machine(slot, index.0, body)?;
                index
            }
        };
        if self.setup.durable_machine {
            self.nodes[slot].disk.applied = up_to.0;
        }
        self.answer_queries(slot)?;
        self.see(&Seen::Applied { slot, index: up_to.0, restored })?;
        self.step(slot, now, 0, Input::Applied { up_to })
    }
}
