//! States that are written out.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use quorate_core::{Frozen, Sink, StateError, Store as _};

use super::{
    super::{
        desk::{Desk, SnapshotLimits},
        error::TakeError,
        take::{Cancel, take},
    },
    support::*,
};
use crate::{MemoryStore, lane::Runner, metrics::Meter};

/// Writes this, in pieces, and does something before each.
struct State<F: Fn(usize) -> Result<(), StateError> + Send>(Vec<u8>, F);

impl<F: Fn(usize) -> Result<(), StateError> + Send> Frozen for State<F> {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        for (n, piece) in self.0.chunks(10_000).enumerate() {
            self.1(n)?;
            out.put(piece)?;
        }
        Ok(())
    }
}

fn world(limits: SnapshotLimits) -> (Arc<Desk>, MemoryStore) {
    (
        Desk::new(limits, Runner::Threads(tokio::runtime::Handle::current())),
        MemoryStore::new(membership()).with_group(OTHER, membership()),
    )
}

#[tokio::test]
async fn is_published_whole_or_not_at_all() {
    let (desk, store) = world(limits());
    let bytes = state(100_000, 1);
    let go = |at: u64, frozen: &dyn Frozen, cancel: &Cancel| {
        take(&desk, &store.snapshots(), &Meter::off(), GROUP, &snapshot(at), frozen, cancel)
    };
    let none = || Cancel::default();
    let found =
        go(10, &State(bytes.clone(), |n| if n < 5 { Ok(()) } else { Err("no more".into()) }), &none());
    assert!(matches!(&found, Err(TakeError::State(error)) if error.to_string() == "no more"), "{found:?}");
    let found = go(
        10,
        &State(bytes.clone(), |n| {
            assert!(n < 5, "no state");
            Ok(())
        }),
        &none(),
    );
    assert!(matches!(&found, Err(TakeError::Panicked(text)) if text == "no state"), "{found:?}");
    let cancel = none();
    let cancelled = State(bytes.clone(), |n| {
        if n == 5 {
            cancel.cancel();
        }
        Ok(())
    });
    let found = go(10, &cancelled, &cancel);
    assert!(matches!(found, Err(TakeError::Cancelled)), "{found:?}");
    assert_eq!(listed(&store, GROUP), []);
    // Nothing of all that is in the way.
    let info = go(10, &State(bytes.clone(), |_| Ok(())), &none()).unwrap();
    assert_eq!((info.bytes, &info.snapshot), (100_000, &snapshot(10)));
    assert_eq!(listed(&store, GROUP), [info]);
    let found = go(10, &State(bytes, |_| Ok(())), &none());
    assert!(
        matches!(&found, Err(TakeError::Store(error)) if error.to_string().contains("of no use")),
        "{found:?}"
    );
    let counts = desk.board.counts();
    assert_eq!((counts.taken, counts.taken_bytes, counts.takes_failed), (1, 100_000, 4));
    assert_eq!(desk.board.progress(), []);
}

/// Doesn't look at what the sink says.
struct Careless(Vec<u8>);

impl Frozen for Careless {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        for piece in self.0.chunks(1_000) {
            let _ignored = out.put(piece);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_machine_that_passes_over_errors_publishes_nothing() {
    let (desk, store) = world(limits());
    let cancel = Cancel::default();
    cancel.cancel();
    let snapshots = store.snapshots();
    let found =
        take(&desk, &snapshots, &Meter::off(), GROUP, &snapshot(10), &Careless(state(10_000, 2)), &cancel);
    assert!(matches!(found, Err(TakeError::Cancelled)), "{found:?}");

    // The store fails in the middle.
    let failing = State(state(100_000, 3), |n| {
        if n == 5 {
            store.fail("the disk is full");
        }
        Ok(())
    });
    // A store in memory fails only when it publishes.
    let found = take(&desk, &snapshots, &Meter::off(), GROUP, &snapshot(10), &failing, &Cancel::default());
    assert!(
        matches!(&found, Err(TakeError::Store(error)) if error.to_string() == "the disk is full"),
        "{found:?}"
    );
    store.repair();
    assert_eq!(listed(&store, GROUP), []);
}

#[tokio::test]
async fn is_given_up_while_it_waits_for_its_rate() {
    // At this rate each chunk would take an hour.
    let slow = SnapshotLimits { take_rate: NonZeroU64::new(1), ..limits() };
    let (desk, store) = world(slow);
    let cancel = Cancel::default();
    let (given_up, snapshots) = (cancel.clone(), store.snapshots());
    let (answer, ended) = std::sync::mpsc::channel();
    std::thread::spawn({
        let desk = desk.clone();
        move || {
            let state = State(state(1 << 20, 4), |_| Ok(()));
            answer
                .send(take(&desk, &snapshots, &Meter::off(), GROUP, &snapshot(10), &state, &given_up))
                .is_ok()
        }
    });
    while desk.board.progress().first().is_none_or(|entry| entry.done == 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let entry = desk.board.progress().remove(0);
    assert_eq!((entry.group, entry.total, entry.last), (GROUP, None, snapshot(10).last));
    cancel.cancel();
    let found = ended.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(found, Err(TakeError::Cancelled)), "{found:?}");
    assert_eq!((listed(&store, GROUP), desk.board.progress()), (vec![], vec![]));
}
