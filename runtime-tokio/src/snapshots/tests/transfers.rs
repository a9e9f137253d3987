//! From one node to another.

use std::{sync::Arc, time::Duration};

use quorate_core::{LogId, NodeId, SnapshotInfo, StateError, Store as _, Term};
use tokio::time::timeout;

use super::{
    super::{
        desk::SnapshotLimits,
        erased::{AnyReader, AnySnapshots, AnyWriter, StoreError},
        error::TransferError,
        frame::{Reason, Which},
        outgoing::open_snapshot,
        progress::SnapshotActivity,
        send::{self, Purpose},
    },
    support::*,
};
use crate::metrics::Meter;

/// One attempt, over one stream.
async fn attempt(world: &Arc<World>, to: u64, which: &Which) -> Result<Which, TransferError> {
    let local = world.local(NodeId(1), GROUP);
    let bytes = open_snapshot(&local.desk, &local.store, GROUP, &which.info).await.unwrap();
    let activity = SnapshotActivity::Sending { to: NodeId(to) };
    let listed = local.desk.board.list(
        &Meter::off(),
        GROUP,
        activity,
        which.info.snapshot.last,
        Some(which.info.bytes),
    );
    let stream = world.open(NodeId(1), NodeId(to), GROUP)?;
    send::send(&local.desk, stream, Purpose::Install, which, Some(&bytes), &listed).await
}

#[track_caller]
fn arrived(world: &World, to: u64, which: &Which, bytes: &[u8]) {
    assert_eq!(world.has(to, GROUP), std::slice::from_ref(&which.info));
    assert_eq!(world.bytes(to, GROUP, which.info.snapshot.last), bytes);
    assert_eq!(world.told(to, GROUP).last(), Some(&(NodeId(1), which.message())));
}

#[tokio::test(start_paused = true)]
async fn it_arrives_whole_and_only_then_the_core_and_the_sender_hear_of_it() {
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, SIZE] {
        let world = World::new(&limits());
        let bytes = state(len, 1);
        let which = world.publish(1, GROUP, 100, &bytes);
        world.errand(2, GROUP, &which, &[]).run().await.unwrap();
        arrived(&world, 2, &which, &bytes);
        world.idle().await;
        let (sender, receiver) =
            (world.desks[&NodeId(1)].board.counts(), world.desks[&NodeId(2)].board.counts());
        assert_eq!((sender.sent, sender.sent_bytes, sender.sends_failed), (1, len as u64, 0));
        assert_eq!(
            (receiver.received, receiver.received_bytes, receiver.receives_failed),
            (1, len as u64, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn broken_anywhere_nothing_is_published_and_the_next_attempt_goes_on_from_there() {
    let bytes = state(SIZE, 2);
    let mut resumed = 0;
    // The whole stream has about 200 bytes more than the state.
    for (n, cut) in (0..SIZE).step_by(613).enumerate() {
        // What was not synced on the way is when the stream breaks.
        let sync_bytes = if n % 2 == 0 { CHUNK as u64 } else { u64::MAX };
        let world = World::new(&SnapshotLimits { sync_bytes, ..limits() });
        let which = world.publish(1, GROUP, 100, &bytes);
        world.flawed(1, 2, [Flaw::CutThere(cut)]);
        let error = attempt(&world, 2, &which).await.unwrap_err();
        assert!(error.is_passing(), "cut after {cut}: {error:?}");
        world.idle().await;
        assert_eq!((world.has(2, GROUP), world.told(2, GROUP)), (vec![], vec![]), "cut after {cut}");
        let staged = world.desks[&NodeId(2)].board.counts().received_bytes;
        assert_eq!(attempt(&world, 2, &which).await.unwrap(), which);
        arrived(&world, 2, &which, &bytes);
        // Not a byte that was staged is staged again.
        assert_eq!(world.desks[&NodeId(2)].board.counts().received_bytes, SIZE as u64, "cut after {cut}");
        resumed += u32::from(staged > 0);
    }
    assert!(resumed > 50, "most of them have gone on somewhere in the middle, {resumed}");
}

#[tokio::test(start_paused = true)]
async fn broken_on_the_way_back_it_is_not_sent_twice() {
    let bytes = state(SIZE, 3);
    for cut in 0..200 {
        let world = World::new(&limits());
        let which = world.publish(1, GROUP, 100, &bytes);
        world.flawed(1, 2, [Flaw::CutBack(cut)]);
        world.errand(2, GROUP, &which, &[]).run().await.unwrap();
        arrived(&world, 2, &which, &bytes);
        assert_eq!(world.desks[&NodeId(2)].board.counts().received_bytes, SIZE as u64, "cut after {cut}");
        assert!(world.told(2, GROUP).len() <= 2, "the core may hear of it again, and no more");
    }
}

#[tokio::test(start_paused = true)]
async fn one_errand_takes_as_many_streams_as_it_needs_as_long_as_something_moves() {
    let world = World::new(&limits());
    let bytes = state(SIZE, 4);
    let which = world.publish(1, GROUP, 100, &bytes);
    let a_chunk_each = 2 * CHUNK;
    let moved = std::iter::repeat_n(Flaw::CutThere(a_chunk_each), 8);
    world.flawed(1, 2, [Flaw::Refused, Flaw::Refused, Flaw::CutThere(100)].into_iter().chain(moved));
    world.errand(2, GROUP, &which, &[]).run().await.unwrap();
    arrived(&world, 2, &which, &bytes);
    assert!(world.opened.lock().unwrap().len() >= 8);

    // But not when nothing does.
    let world = World::new(&limits());
    let which = world.publish(1, GROUP, 100, &bytes);
    world.flawed(1, 2, std::iter::repeat_n(Flaw::Refused, 4));
    let error = world.errand(2, GROUP, &which, &[]).run().await.unwrap_err();
    assert!(matches!(error, TransferError::Open(_)), "{error:?}");
    assert_eq!(world.desks[&NodeId(1)].board.counts().sends_failed, 1);
}

#[tokio::test(start_paused = true)]
async fn no_flipped_bit_gets_through() {
    let bytes = state(SIZE, 5);
    for bit in (0..SIZE * 8).step_by(4_801) {
        let world = World::new(&limits());
        let which = world.publish(1, GROUP, 100, &bytes);
        world.flawed(1, 2, [Flaw::Flip(bit)]);
        attempt(&world, 2, &which).await.unwrap_err();
        world.idle().await;
        assert_eq!((world.has(2, GROUP), world.told(2, GROUP)), (vec![], vec![]), "bit {bit}");
        attempt(&world, 2, &which).await.unwrap();
        arrived(&world, 2, &which, &bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_slows_the_sender_down_and_is_given_up_in_time() {
    let world = World::new(&limits());
    let which = world.publish(1, GROUP, 100, &state(1 << 20, 6));
    world.flawed(1, 2, [Flaw::Deaf]);
    let started = tokio::time::Instant::now();
    let error = attempt(&world, 2, &which).await.unwrap_err();
    assert!(matches!(error, TransferError::Stalled(_)), "{error:?}");
    assert_eq!(started.elapsed(), limits().stall_timeout, "by the paused clock");
    assert_eq!(world.desks[&NodeId(1)].board.counts().sent_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_never_has_more_than_a_few_chunks_in_memory() {
    let rate = std::num::NonZeroU64::new(64 << 10);
    let world = World::new(&SnapshotLimits { receive_rate: rate, ..limits() });
    let bytes = state(1 << 20, 7);
    let which = world.publish(1, GROUP, 100, &bytes);
    let errand = tokio::spawn(world.errand(2, GROUP, &which, &[]).run());
    let mut seen = 0;
    while !errand.is_finished() {
        let sent = world.desks[&NodeId(1)].board.counts().sent_bytes;
        let staged = world.desks[&NodeId(2)].board.counts().received_bytes;
        let between = sent.saturating_sub(staged);
        // What the stream holds (8 KiB), a chunk in each hand, and those that were counted in between.
        assert!(between <= (8 << 10) + 3 * CHUNK as u64, "{between} bytes");
        for entry in world.desks[&NodeId(2)].board.progress() {
            assert_eq!((entry.total, entry.last), (Some(1 << 20), which.info.snapshot.last));
            assert_eq!(entry.activity, SnapshotActivity::Receiving { from: NodeId(1) });
            seen += u32::from(entry.done > 0 && entry.done < 1 << 20);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    errand.await.unwrap().unwrap();
    arrived(&world, 2, &which, &bytes);
    assert!(seen > 100, "progress could be watched, {seen}");
}

#[tokio::test(start_paused = true)]
async fn a_later_leader_takes_the_place_of_an_earlier_one_and_not_the_other_way_round() {
    let rate = std::num::NonZeroU64::new(8 << 10);
    let world = World::new(&SnapshotLimits { receive_rate: rate, ..limits() });
    let bytes = state(SIZE, 8);
    let old = world.publish(1, GROUP, 100, &bytes);
    let slow = tokio::spawn({
        let world = world.clone();
        let old = old.clone();
        async move { attempt(&world, 2, &old).await }
    });
    while world.desks[&NodeId(2)].board.counts().received_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Of an earlier term: refused, and the one under way goes on.
    let earlier = Which { term: Term(4), ..old.clone() };
    let error = attempt(&world, 2, &earlier).await.unwrap_err();
    assert!(matches!(error, TransferError::Refused { reason: Reason::Stale, .. }), "{error:?}");
    assert!(!slow.is_finished());
    // Of a later term, the same bytes: it goes on where the other was.
    let later = Which { term: Term(6), ..old };
    let before = world.desks[&NodeId(2)].board.counts().received_bytes;
    assert!(before < SIZE as u64);
    assert_eq!(attempt(&world, 2, &later).await.unwrap(), later);
    let error = slow.await.unwrap().unwrap_err();
    assert!(matches!(error, TransferError::Refused { reason: Reason::Superseded, .. }), "{error:?}");
    arrived(&world, 2, &later, &bytes);
    assert_eq!(world.told(2, GROUP).len(), 1);
    let again = world.desks[&NodeId(2)].board.counts().received_bytes - SIZE as u64;
    assert!(again <= CHUNK as u64, "{again} bytes were staged twice");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cancelled_leaves_what_was_staged_to_the_next() {
    let rate = std::num::NonZeroU64::new(8 << 10);
    let world = World::new(&SnapshotLimits { receive_rate: rate, ..limits() });
    let bytes = state(SIZE, 9);
    let which = world.publish(1, GROUP, 100, &bytes);
    let errand = tokio::spawn(world.errand(2, GROUP, &which, &[]).run());
    while world.desks[&NodeId(2)].board.counts().received_bytes < SIZE as u64 / 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    errand.abort();
    world.idle().await;
    assert_eq!((world.has(2, GROUP), world.told(2, GROUP)), (vec![], vec![]));
    let sending = world.desks[&NodeId(1)].sending.available_permits();
    assert_eq!((sending, world.desks[&NodeId(2)].receiving.available_permits()), (2, 2));
    world.errand(2, GROUP, &which, &[]).run().await.unwrap();
    arrived(&world, 2, &which, &bytes);
    let again = world.desks[&NodeId(2)].board.counts().received_bytes - SIZE as u64;
    assert!(again <= CHUNK as u64, "{again} bytes were staged twice");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_already_is_only_told_of() {
    // Published, but the core never heard of it.
    let world = World::new(&limits());
    let bytes = state(SIZE, 10);
    let which = world.publish(1, GROUP, 100, &bytes);
    world.publish(2, GROUP, 100, &bytes);
    world.errand(2, GROUP, &which, &[]).run().await.unwrap();
    arrived(&world, 2, &which, &bytes);
    assert_eq!(world.desks[&NodeId(1)].board.counts().sent_bytes, 0);

    // A later one, which no one offers any more: the store would not take the earlier one.
    let newer = world.publish(3, GROUP, 120, b"newer");
    world.errand(3, GROUP, &which, &[]).run().await.unwrap();
    assert_eq!(world.told(3, GROUP), [(NodeId(1), newer.message())]);
    assert_eq!(world.desks[&NodeId(1)].board.counts().sent_bytes, 0);

    // Applied: its log had it after all.
    world.ears[&(NodeId(4), GROUP)].applied.store(100, std::sync::atomic::Ordering::SeqCst);
    world.errand(4, GROUP, &which, &[]).run().await.unwrap();
    assert_eq!((world.told(4, GROUP), world.has(4, GROUP)), (vec![(NodeId(1), which.message())], vec![]));
    assert_eq!(world.desks[&NodeId(1)].board.counts().sent_bytes, 0);

    // Other bytes of the same entry are another snapshot.
    let world = World::new(&limits());
    let which = world.publish(1, GROUP, 100, &bytes);
    world.publish(2, GROUP, 100, b"damaged");
    world.errand(2, GROUP, &which, &[]).run().await.unwrap();
    arrived(&world, 2, &which, &bytes);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_brought_meanwhile_is_not_waited_for() {
    let rate = std::num::NonZeroU64::new(8 << 10);
    let world = World::new(&SnapshotLimits { receive_rate: rate, ..limits() });
    let which = world.publish(1, GROUP, 100, &state(SIZE, 11));
    let errand = tokio::spawn(world.errand(2, GROUP, &which, &[]).run());
    while world.desks[&NodeId(2)].board.counts().received_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.ears[&(NodeId(2), GROUP)].applied.store(100, std::sync::atomic::Ordering::SeqCst);
    errand.await.unwrap().unwrap();
    assert_eq!((world.told(2, GROUP), world.has(2, GROUP)), (vec![(NodeId(1), which.message())], vec![]));
    assert!(world.desks[&NodeId(1)].board.counts().sent_bytes < SIZE as u64);
}

#[tokio::test(start_paused = true)]
async fn receives_take_turns_and_whoever_waits_too_long_is_told_so() {
    let rate = std::num::NonZeroU64::new(8 << 10);
    let limits =
        SnapshotLimits { receive_rate: rate, receives: 1, stall_timeout: Duration::from_secs(1), ..limits() };
    let world = World::new(&limits);
    let bytes = state(SIZE, 12);
    let first = world.publish(1, GROUP, 100, &bytes);
    let second = world.publish(1, OTHER, 100, &bytes);
    let one = tokio::spawn(world.errand(2, GROUP, &first, &[]).run());
    while world.desks[&NodeId(2)].board.counts().received_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It takes 5 seconds; the other waits through several stall timeouts, for it hears that the receiver lives.
    let two = tokio::spawn(world.errand(2, OTHER, &second, &[]).run());
    one.await.unwrap().unwrap();
    assert!(!two.is_finished());
    two.await.unwrap().unwrap();
    assert_eq!(world.opened.lock().unwrap().len(), 2, "neither has begun anew");

    let world = World::new(&SnapshotLimits { queue_timeout: Duration::from_secs(2), ..limits });
    let which = world.publish(1, GROUP, 100, &bytes);
    let taken = world.desks[&NodeId(2)].receiving.clone().acquire_owned().await.unwrap();
    let error = attempt(&world, 2, &which).await.unwrap_err();
    assert!(matches!(error, TransferError::Refused { reason: Reason::Busy, .. }), "{error:?}");
    drop(taken);
    attempt(&world, 2, &which).await.unwrap();
}

/// A store that dawdles when it publishes, or can't receive at all.
struct Odd {
    inner: Arc<dyn AnySnapshots>,
    publish: Duration,
    receive: Option<&'static str>,
}

impl AnySnapshots for Odd {
    fn list(&self, group: quorate_core::GroupId) -> Result<Vec<SnapshotInfo>, StoreError> {
        self.inner.list(group)
    }

    fn take(
        &self,
        group: quorate_core::GroupId,
        snapshot: &quorate_core::Snapshot,
    ) -> Result<Box<dyn AnyWriter>, StoreError> {
        self.inner.take(group, snapshot)
    }

    fn receive(
        &self,
        group: quorate_core::GroupId,
        info: &SnapshotInfo,
    ) -> Result<Box<dyn AnyWriter>, StoreError> {
        match self.receive {
            Some(why) => Err(StateError::from(why)),
            None => Ok(Box::new(OddWriter(self.inner.receive(group, info)?, self.publish))),
        }
    }

    fn open(
        &self,
        group: quorate_core::GroupId,
        last: LogId,
    ) -> Result<Option<Box<dyn AnyReader>>, StoreError> {
        self.inner.open(group, last)
    }
}

struct OddWriter(Box<dyn AnyWriter>, Duration);

impl AnyWriter for OddWriter {
    fn staged(&self) -> u64 {
        self.0.staged()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.0.sync()
    }

    fn publish(self: Box<Self>) -> Result<SnapshotInfo, StoreError> {
        std::thread::sleep(self.1);
        self.0.publish()
    }
}

fn odd(limits: &SnapshotLimits, publish: Duration, receive: Option<&'static str>) -> Arc<World> {
    World::with(limits, |_, store| Arc::new(Odd { inner: Arc::new(store.snapshots()), publish, receive }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_takes_its_time_is_waited_for() {
    let limits = SnapshotLimits { stall_timeout: Duration::from_secs(1), ..limits() };
    let world = odd(&limits, Duration::from_millis(2_500), None);
    let bytes = state(SIZE, 13);
    let which = world.publish(1, GROUP, 100, &bytes);
    timeout(Duration::from_secs(60), attempt(&world, 2, &which)).await.unwrap().unwrap();
    arrived(&world, 2, &which, &bytes);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_no_is_not_asked_at_once_again() {
    let world = odd(&limits(), Duration::ZERO, Some("the disk is full"));
    let which = world.publish(1, GROUP, 100, b"state");
    let started = tokio::time::Instant::now();
    let error = world.errand(2, GROUP, &which, &[]).run().await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(world.opened.lock().unwrap().len(), 1);
    assert!(started.elapsed() >= Duration::from_secs(1), "the core hears of it after a while");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_gone_can_not_be_sent() {
    let world = World::new(&limits());
    let mut which = world.publish(1, GROUP, 100, b"state");
    which.info.snapshot.last.index.0 = 99;
    let error = world.errand(2, GROUP, &which, &[]).run().await.unwrap_err();
    assert!(matches!(error, TransferError::Gone(_)), "{error:?}");
}
