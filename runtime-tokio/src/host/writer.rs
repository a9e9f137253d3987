//! Owns the store: makes all that waits, of whatever groups, durable with one commit.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use quorate_core::{
    GroupId, Incarnation, Input, Membership, Receipt, Recovered, SnapshotReader as _, Snapshots as _, Source,
    Store, Write,
};
use tokio::sync::oneshot;

use super::Port;
use crate::{
    builder::StartError,
    error::{GroupError, StopReason, chain, panic_message},
    lane::Worker,
    metrics::StoreMeter,
    snapshot::SnapshotSource,
    status::count,
    thread::Alive,
};

/// Something for the store.
pub(crate) enum Job {
    /// Make it durable.
    Write(Write),
    /// A group begins a new life.
    Open(Opening),
    /// Its life is over, if it began: nothing of it comes after this, and another begins behind it.
    Close {
        group: GroupId,
    },
    Create {
        group: GroupId,
        membership: Membership,
        answer: oneshot::Sender<Result<(), GroupError>>,
    },
    Remove {
        group: GroupId,
        answer: oneshot::Sender<Result<(), GroupError>>,
    },
    Groups {
        answer: oneshot::Sender<Result<Vec<GroupId>, GroupError>>,
    },
}

/// A group that is to be opened.
pub(crate) struct Opening {
    pub(crate) group: GroupId,
    pub(crate) port: Arc<dyn Port>,
    pub(crate) answer: oneshot::Sender<Result<Open, StartError>>,
}

/// A group that is open.
pub(crate) struct Open {
    pub(crate) recovered: Recovered,
    /// The bytes of the snapshot that `recovered` names.
    pub(crate) snapshot: Option<Box<dyn Source + Send>>,
    /// How many those are; 0 without one.
    pub(crate) snapshot_bytes: u64,
}

/// How long a store is left alone after a commit before it settles.
const QUIET: Duration = Duration::from_millis(50);

/// The store's owner. While one commit is under way the writes behind it gather, and go into the next one together: the slower
/// the disk, the bigger the commits.
pub(super) struct Writer<St> {
    store: St,
    /// Who is told of what is durable.
    ports: BTreeMap<GroupId, (Incarnation, Arc<dyn Port>)>,
    /// What is to be committed next, and who is to be opened next: one of the two is empty.
    batch: Vec<Write>,
    opening: Vec<Opening>,
    meter: Arc<StoreMeter>,
    _alive: Alive,
}

/// The store has failed, and is never written again.
struct Failed(String);

impl<St: Store> Writer<St> {
    pub(super) fn new(store: St, alive: Alive, meter: Arc<StoreMeter>) -> Self {
        let (batch, opening) = (Vec::new(), Vec::new());
        Self { store, ports: BTreeMap::new(), batch, opening, meter, _alive: alive }
    }

    fn job(&mut self, job: Job) -> Result<(), Failed> {
        let job = match job {
            Job::Write(write) => {
                self.open_all()?;
                self.batch.push(write);
                return Ok(());
            }
            Job::Open(opening) => {
                self.commit()?;
                self.opening.push(opening);
                return Ok(());
            }
            job => job,
        };
        // What came before is done before anything else happens.
        self.flush()?;
        match job {
            Job::Write(_) | Job::Open(_) => {}
            Job::Close { group } => drop(self.ports.remove(&group)),
            Job::Create { group, membership, answer } => {
                let result = self.guarded(|writer| writer.store.create(group, &membership))?;
                let _gone = answer.send(result.map_err(GroupError::store));
            }
            Job::Remove { group, answer } => {
                let result = self.guarded(|writer| writer.store.remove(group))?;
                let _gone = answer.send(result.map_err(GroupError::store));
            }
            Job::Groups { answer } => {
                let result = self.guarded(|writer| writer.store.groups())?;
                let _gone = answer.send(result.map_err(GroupError::store));
            }
        }
        Ok(())
    }

    /// A store that panics has failed like one that returns an error from a commit: it is never written again.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Result<T, Failed> {
        catch_unwind(AssertUnwindSafe(|| work(self)))
            .map_err(|panic| Failed(format!("it panicked: {}", panic_message(&*panic))))
    }

    /// Opens those that wait for it: all of their new lives become durable with one commit.
    fn open_all(&mut self) -> Result<(), Failed> {
        let opening = mem::take(&mut self.opening);
        let groups: Vec<GroupId> = opening.iter().map(|opening| opening.group).collect();
        // Together only if all can be: else each learns what is wrong with itself.
        let together = match groups.len() {
            0 | 1 => Ok(None),
            _ => self.guarded(|writer| writer.store.recover_many(&groups)).map(Result::ok),
        };
        let (mut recovered, mut failed) = match together {
            Ok(together) => (together.map(Vec::into_iter), None),
            Err(failed) => (None, Some(failed)),
        };
        for Opening { group, port, answer } in opening {
            if failed.is_none() {
                let known = recovered.as_mut().and_then(Iterator::next);
                match self.guarded(|writer| writer.open(group, known)) {
                    Ok(result) => {
                        if let Ok(open) = &result {
                            self.ports.insert(group, (open.recovered.incarnation, port));
                        }
                        // Whoever has gone meanwhile closes it, behind this.
                        let _gone = answer.send(result);
                        continue;
                    }
                    Err(panicked) => failed = Some(panicked),
                }
            }
            let _gone = answer.send(Err(StartError::StorePanicked));
        }
        failed.map_or(Ok(()), Err)
    }

    fn open(&mut self, group: GroupId, recovered: Option<Recovered>) -> Result<Open, StartError> {
        let failed = |error: St::Error| StartError::Store(Box::new(error));
        let recovered = match recovered {
            Some(recovered) => recovered,
            None => self.store.recover(group).map_err(failed)?,
        };
        let mut snapshot_bytes = 0;
        let snapshot = match &recovered.snapshot {
            None => None,
            Some(snapshot) => {
                let reader = self.store.snapshots().open(group, snapshot.last).map_err(failed)?;
                let reader = reader.ok_or(StartError::NoSnapshot { at: snapshot.last })?;
                snapshot_bytes = reader.info().bytes;
                Some(Box::new(SnapshotSource::new(reader)) as Box<dyn Source + Send>)
            }
        };
        Ok(Open { recovered, snapshot, snapshot_bytes })
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.commit()?;
        self.open_all()
    }

    fn commit(&mut self) -> Result<(), Failed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        while let Err(error) = self.guarded(|writer| writer.store.commit(&writer.batch))? {
            let failed = Failed(chain(&error));
            let refused = St::refused(&error).ok_or(failed)?;
            self.leave_out(refused, &error)?;
        }
        let bytes = self.batch.iter().map(Write::bytes).sum();
        self.meter.committed(begun.elapsed(), self.batch.len(), bytes);
        // Each group's side by side, in their order: it is woken once.
        self.batch.sort_by_key(|write| write.receipt().group());
        let mut merged: Option<(usize, Receipt)> = None;
        for receipt in self.batch.drain(..).map(Write::into_receipt) {
            merged = Some(match merged.take() {
                None => (1, receipt),
                Some((writes, before)) => match before.merge(receipt) {
                    Ok(both) => (writes + 1, both),
                    Err((before, receipt)) => {
                        hand_in(&self.ports, writes, before);
                        (1, receipt)
                    }
                },
            });
        }
        if let Some((writes, receipt)) = merged {
            hand_in(&self.ports, writes, receipt);
        }
        Ok(())
    }

    /// The store refuses one group's writes, and goes on: that group ends, and no other.
    fn leave_out(&mut self, group: GroupId, why: &St::Error) -> Result<(), Failed> {
        let before = self.batch.len();
        self.batch.retain(|write| write.receipt().group() != group);
        if self.batch.len() == before {
            return Err(Failed(format!("it refuses what it was not given: {}", chain(why))));
        }
        if let Some((_, port)) = self.ports.remove(&group) {
            port.fail(StopReason::Storage(chain(why).into()));
        }
        Ok(())
    }

    /// Nobody's writes may be called durable any more: the receipts of the batch are dropped.
    fn fail(&self, Failed(why): Failed) -> ControlFlow<()> {
        let why: Arc<str> = why.into();
        for (_, port) in self.ports.values() {
            port.fail(StopReason::Storage(why.clone()));
        }
        ControlFlow::Break(())
    }
}

fn hand_in(ports: &BTreeMap<GroupId, (Incarnation, Arc<dyn Port>)>, writes: usize, receipt: Receipt) {
    // Lookup only. Of a life that is over nobody waits to hear.
    let port = ports.get(&receipt.group()).filter(|(current, _)| *current == receipt.incarnation());
    if let Some((_, port)) = port {
        count(&port.counters().commits, 1);
        count(&port.counters().writes, writes);
        port.input(Input::Persisted(receipt));
    }
}

impl<St: Store> Worker<Job> for Writer<St> {
    fn work(&mut self, jobs: &mut VecDeque<Job>) -> ControlFlow<()> {
        let done = jobs.drain(..).try_for_each(|job| self.job(job)).and_then(|()| self.flush());
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(failed) => self.fail(failed),
        }
    }

    fn quiet(&self) -> Option<Duration> {
        Some(QUIET)
    }

    fn rest(&mut self) -> ControlFlow<()> {
        let settled = self.guarded(|writer| writer.store.settle());
        match settled.and_then(|settled| settled.map_err(|error| Failed(chain(&error)))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failed) => self.fail(failed),
        }
    }
}

#[cfg(test)]
mod tests;
