//! Owns the store: makes all that waits, of whatever groups, durable with one commit.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use quorate_core::{
    GroupId, Incarnation, Input, Membership, Receipt, Recovered, Snapshots as _, Source, Store, Write,
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
    Open {
        group: GroupId,
        port: Arc<dyn Port>,
        answer: oneshot::Sender<Result<Open, StartError>>,
    },
    /// Its life is over: nothing of it comes after this.
    Close {
        group: GroupId,
        incarnation: Incarnation,
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

/// A group that is open.
pub(crate) struct Open {
    pub(crate) recovered: Recovered,
    /// The bytes of the snapshot that `recovered` names.
    pub(crate) snapshot: Option<Box<dyn Source + Send>>,
}

/// How long a store is left alone after a commit before it settles.
const QUIET: Duration = Duration::from_millis(50);

/// The store's owner. While one commit is under way the writes behind it gather, and go into the next one together: the slower
/// the disk, the bigger the commits.
pub(super) struct Writer<St> {
    store: St,
    /// Who is told of what is durable.
    ports: BTreeMap<GroupId, (Incarnation, Arc<dyn Port>)>,
    batch: Vec<Write>,
    meter: Arc<StoreMeter>,
    _alive: Alive,
}

/// The store has failed, and is never written again.
struct Failed(String);

impl<St: Store> Writer<St> {
    pub(super) const fn new(store: St, alive: Alive, meter: Arc<StoreMeter>) -> Self {
        Self { store, ports: BTreeMap::new(), batch: Vec::new(), meter, _alive: alive }
    }

    fn job(&mut self, job: Job) -> Result<(), Failed> {
        if let Job::Write(write) = job {
            self.batch.push(write);
            return Ok(());
        }
        // What came before is durable before anything else happens.
        self.commit()?;
        match job {
            Job::Write(_) => {}
            Job::Open { group, port, answer } => {
                let result = self.guarded(|writer| writer.open(group, &port))?;
                if let Ok(open) = &result {
                    self.ports.insert(group, (open.recovered.incarnation, port));
                }
                let _gone = answer.send(result);
            }
            Job::Close { group, incarnation } => {
                if self.ports.get(&group).is_some_and(|(current, _)| *current == incarnation) {
                    self.ports.remove(&group);
                }
            }
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

    fn open(&mut self, group: GroupId, _port: &Arc<dyn Port>) -> Result<Open, StartError> {
        let failed = |error: St::Error| StartError::Store(Box::new(error));
        let recovered = self.store.recover(group).map_err(failed)?;
        let snapshot = match &recovered.snapshot {
            None => None,
            Some(snapshot) => {
                let reader = self.store.snapshots().open(group, snapshot.last).map_err(failed)?;
                let reader = reader.ok_or(StartError::NoSnapshot { at: snapshot.last })?;
                Some(Box::new(SnapshotSource::new(reader)) as Box<dyn Source + Send>)
            }
        };
        Ok(Open { recovered, snapshot })
    }

    fn commit(&mut self) -> Result<(), Failed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        self.guarded(|writer| writer.store.commit(&writer.batch))?.map_err(|error| Failed(chain(&error)))?;
        let bytes = self.batch.iter().map(Write::bytes).sum();
        self.meter.committed(begun.elapsed(), self.batch.len(), bytes);
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
        let done = jobs.drain(..).try_for_each(|job| self.job(job)).and_then(|()| self.commit());
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
