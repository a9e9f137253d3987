//! Writes a state that is held still into the store, on a thread that may wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use quorate_core::{Frozen, GroupId, Sink, Snapshot, SnapshotInfo, StateError};

use super::{
    desk::Desk,
    erased::{AnySnapshots, AnyWriter},
    error::TakeError,
    progress::{Listed, SnapshotActivity, add},
};
use crate::{error::panic_message, metrics::Meter};

/// Tells whoever writes a snapshot to give it up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, Relaxed);
    }

    fn check(&self) -> Result<(), TakeError> {
        if self.0.load(Relaxed) { Err(TakeError::Cancelled) } else { Ok(()) }
    }
}

/// So long is slept at a time while the throttle has to be waited for: a snapshot that is given up ends soon.
const SLICE: Duration = Duration::from_millis(20);

/// Writes and publishes the snapshot. The caller holds [`Desk::taking`].
///
/// # Errors
/// If it is given up, or the store or the state machine fails. Nothing is left of it then.
pub(crate) fn take(
    desk: &Desk,
    store: &dyn AnySnapshots,
    metrics: &Meter,
    group: GroupId,
    snapshot: &Snapshot,
    frozen: &dyn Frozen,
    cancel: &Cancel,
) -> Result<SnapshotInfo, TakeError> {
    let listed = desk.board.list(metrics, group, SnapshotActivity::Taking, snapshot.last, None);
    let taken = write(desk, store, group, snapshot, frozen, cancel, &listed);
    match &taken {
        Ok(info) => {
            listed.finish();
            add(&desk.board.taken, 1);
            add(&desk.board.taken_bytes, info.bytes);
        }
        Err(_) => add(&desk.board.takes_failed, 1),
    }
    taken
}

fn write(
    desk: &Desk,
    store: &dyn AnySnapshots,
    group: GroupId,
    snapshot: &Snapshot,
    frozen: &dyn Frozen,
    cancel: &Cancel,
    listed: &Listed,
) -> Result<SnapshotInfo, TakeError> {
    cancel.check()?;
    let writer = store.take(group, snapshot).map_err(TakeError::Store)?;
    let mut out = Out { desk, cancel, writer, listed, unsynced: 0, failed: None };
    let written = catch_unwind(AssertUnwindSafe(|| frozen.write(&mut out)));
    // What the sink has said is why; the state machine may have wrapped it, or have passed over it.
    if let Some(failed) = out.failed {
        return Err(failed);
    }
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(TakeError::State(error)),
        Err(panic) => return Err(TakeError::Panicked(panic_message(&*panic))),
    }
    cancel.check()?;
    out.writer.publish().map_err(TakeError::Store)
}

/// Where the state machine writes to.
struct Out<'a> {
    desk: &'a Desk,
    cancel: &'a Cancel,
    writer: Box<dyn AnyWriter>,
    listed: &'a Listed,
    unsynced: u64,
    failed: Option<TakeError>,
}

impl Sink for Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        for chunk in bytes.chunks(self.desk.limits.chunk_bytes) {
            if self.failed.is_none() {
                self.failed = self.write(chunk).err();
            }
            if let Some(failed) = &self.failed {
                return Err(failed.to_string().into());
            }
        }
        Ok(())
    }
}

impl Out<'_> {
    fn write(&mut self, chunk: &[u8]) -> Result<(), TakeError> {
        let mut wait = self.desk.take_throttle.delay(chunk.len());
        while !wait.is_zero() {
            self.cancel.check()?;
            let slice = wait.min(SLICE);
            thread::sleep(slice);
            wait -= slice;
        }
        self.cancel.check()?;
        self.writer.write(chunk).map_err(TakeError::Store)?;
        self.listed.set(self.writer.staged());
        self.unsynced += chunk.len() as u64;
        if self.unsynced >= self.desk.limits.sync_bytes {
            self.unsynced = 0;
            self.writer.sync().map_err(TakeError::Store)?;
        }
        Ok(())
    }
}
