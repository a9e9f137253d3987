//! The storage threads: one writes, merging all that waits into one durable commit; one reads the log beside it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Duration,
};

use quorate_core::{
    GroupId, Input, Load, LogReader, Receipt, Recovered, Snapshots as _, Source, StateMachine, Store, Write,
};
use tokio::sync::oneshot;

use crate::{
    builder::StartError,
    error::{StopReason, panic_message},
    shared::Shared,
    snapshot::SnapshotSource,
    status::count,
    thread::{Alive, spawn},
};

/// The writer's queue. The core bounds it by `max_unpersisted_bytes`: beyond it a follower drops appends and a leader
/// refuses proposals.
pub(crate) type Writes = std::sync::mpsc::Sender<Write>;

/// The reader's queue. The core asks at most one question at a time for each peer, and one for apply.
pub(crate) type Loads = std::sync::mpsc::Sender<(GroupId, Load)>;

/// What the writer says once, when it has opened its store.
pub(crate) type Opened = Result<Open, StartError>;

/// A store that is open.
pub(crate) struct Open {
    pub(crate) recovered: Recovered,
    pub(crate) loads: Loads,
    /// The bytes of the snapshot that `recovered` names.
    pub(crate) snapshot: Option<Box<dyn Source + Send>>,
}

/// How long a store is left alone after a commit before it settles.
const QUIET: Duration = Duration::from_millis(50);

/// Opens `group` in the store, on the thread that will own it from now on; then commits what comes.
///
/// A thread of its own, as a commit waits for the disk. While one commit is under way, the writes behind it gather,
/// and go into the next one together: the slower the disk, the bigger the commits.
pub(crate) fn run<St: Store, S: StateMachine>(
    mut store: St,
    group: GroupId,
    writes: &Receiver<Write>,
    opened: oneshot::Sender<Opened>,
    shared: &Arc<Shared<S>>,
    alive: &Alive,
) {
    if opened.send(open(&mut store, group, shared, alive)).is_err() {
        return;
    }
    let mut batch = Vec::new();
    // Opening it was a commit as well.
    let mut settled = false;
    loop {
        match if settled { writes.recv().map_err(Into::into) } else { writes.recv_timeout(QUIET) } {
            Ok(write) => batch.push(write),
            // The last commit has been alone for a while.
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        batch.extend(writes.try_iter());
        settled = batch.is_empty();
        // A store that panics has failed like one that returns an error: it is never written again.
        let work = || if batch.is_empty() { store.settle() } else { store.commit(&batch) };
        let why = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) if settled => continue,
            Ok(Ok(())) => {
                count(&shared.counters.commits, 1);
                count(&shared.counters.writes, batch.len());
                hand_in(batch.drain(..).map(Write::into_receipt), |receipt| {
                    shared.inbox.input(Input::Persisted(receipt));
                });
                continue;
            }
            Ok(Err(error)) => chain(&error),
            Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
        };
        // The receipts of the batch are dropped: none of it may be called durable.
        shared.inbox.stop(StopReason::Storage(why.into()));
        return;
    }
}

fn open<St: Store, S: StateMachine>(
    store: &mut St,
    group: GroupId,
    shared: &Arc<Shared<S>>,
    alive: &Alive,
) -> Opened {
    let failed = |error: St::Error| StartError::Store(Box::new(error));
    let recovered = store.recover(group).map_err(failed)?;
    let snapshot = match &recovered.snapshot {
        None => None,
        Some(snapshot) => {
            let reader = store.snapshots().open(group, snapshot.last).map_err(failed)?;
            let reader = reader.ok_or(StartError::NoSnapshot { at: snapshot.last })?;
            Some(Box::new(SnapshotSource::new(reader)) as Box<dyn Source + Send>)
        }
    };
    let loads = start_reader(store.reader(), shared, alive)?;
    Ok(Open { recovered, loads, snapshot })
}

/// Merges receipts as far as they follow one another (those of one group do) and hands them in.
fn hand_in(receipts: impl Iterator<Item = Receipt>, mut each: impl FnMut(Receipt)) {
    let mut merged: Option<Receipt> = None;
    for receipt in receipts {
        merged = Some(match merged {
            None => receipt,
            Some(before) => match before.merge(receipt) {
                Ok(both) => both,
                Err((before, receipt)) => {
                    each(before);
                    receipt
                }
            },
        });
    }
    merged.into_iter().for_each(each);
}

fn start_reader<R: LogReader, S: StateMachine>(
    reader: R,
    shared: &Arc<Shared<S>>,
    alive: &Alive,
) -> Result<Loads, StartError> {
    let (loads, questions) = channel();
    let shared = shared.clone();
    spawn(shared.id, "read", alive, move || read(&reader, &questions, &shared))?;
    Ok(loads)
}

fn read<R: LogReader, S: StateMachine>(
    reader: &R,
    questions: &Receiver<(GroupId, Load)>,
    shared: &Arc<Shared<S>>,
) {
    while let Ok((group, load)) = questions.recv() {
        count(&shared.counters.loads, 1);
        let why = match catch_unwind(AssertUnwindSafe(|| reader.load(group, &load))) {
            Ok(Ok(result)) => {
                shared.inbox.input(Input::Loaded { id: load.id, result });
                continue;
            }
            Ok(Err(error)) => chain(&error),
            Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
        };
        shared.inbox.stop(StopReason::Storage(why.into()));
        return;
    }
}

/// An error with what has caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
