//! Snapshots that another node sends on the leader's behalf.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use quorate_core::NodeId;

use super::{
    super::{
        desk::{SnapshotLimits, SnapshotSourcing},
        progress::SnapshotActivity,
    },
    support::*,
};

fn always() -> SnapshotLimits {
    SnapshotLimits { source: SnapshotSourcing::Always, ..limits() }
}

fn applied(world: &World, id: u64, index: u64) {
    world.ears[&(NodeId(id), GROUP)].applied.store(index, SeqCst);
}

#[tokio::test(start_paused = true)]
async fn another_sends_its_own_and_the_core_hears_of_it_from_the_leader() {
    // Earlier than the leader's, the same, and later.
    for index in [60, 100, 140] {
        let world = World::new(&always());
        let own = world.publish(1, GROUP, 100, b"the leader's");
        let bytes = state(SIZE, index);
        let other = world.publish(3, GROUP, index, &bytes);
        applied(&world, 3, 140);
        world.errand(2, GROUP, &own, &[3]).run().await.unwrap();
        assert_eq!(world.has(2, GROUP), std::slice::from_ref(&other.info));
        assert_eq!(world.bytes(2, GROUP, other.info.snapshot.last), bytes);
        assert_eq!(world.told(2, GROUP), [(NodeId(1), other.message())]);
        let leader = world.desks[&NodeId(1)].board.counts();
        assert_eq!((leader.sent, leader.relayed, leader.sent_bytes), (1, 1, 0));
        assert_eq!(world.desks[&NodeId(3)].board.counts().sent_bytes, SIZE as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_helps_and_is_applied_is_sent_for_another() {
    // The leader's log begins at 50.
    for (index, applied_up_to) in [(49, 200), (140, 139)] {
        let world = World::new(&always());
        let own = world.publish(1, GROUP, 100, b"the leader's");
        world.publish(3, GROUP, index, b"of no use");
        applied(&world, 3, applied_up_to);
        world.errand(2, GROUP, &own, &[3]).run().await.unwrap();
        assert_eq!(world.told(2, GROUP), [(NodeId(1), own.message())]);
        assert_eq!(world.desks[&NodeId(1)].board.counts().relayed, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_can_not_help_is_passed_over_and_in_the_end_the_leader_sends_its_own() {
    let world = World::new(&always());
    let own = world.publish(1, GROUP, 100, b"the leader's");
    let other = world.publish(4, GROUP, 100, b"the other's");
    applied(&world, 4, 100);
    // The target itself is not asked, 3 has none.
    world.errand(2, GROUP, &own, &[2, 3, 4]).run().await.unwrap();
    assert_eq!(world.told(2, GROUP), [(NodeId(1), other.message())]);

    // One that breaks off in the middle, and one that is not there.
    let world = World::new(&always());
    let own = world.publish(1, GROUP, 100, b"the leader's");
    world.publish(3, GROUP, 100, &state(SIZE, 1));
    applied(&world, 3, 100);
    world.flawed(3, 2, [Flaw::CutThere(SIZE / 2)]);
    world.flawed(1, 4, [Flaw::Refused]);
    world.errand(2, GROUP, &own, &[3, 4]).run().await.unwrap();
    assert_eq!(world.told(2, GROUP), [(NodeId(1), own.message())]);
    assert_eq!(world.bytes(2, GROUP, own.info.snapshot.last), b"the leader's");

    // Or that hears the request and never answers.
    let world = World::new(&always());
    let own = world.publish(1, GROUP, 100, b"the leader's");
    world.flawed(1, 3, [Flaw::Deaf]);
    world.errand(2, GROUP, &own, &[3]).run().await.unwrap();
    assert_eq!(world.told(2, GROUP), [(NodeId(1), own.message())]);
}

#[tokio::test(start_paused = true)]
async fn others_are_asked_only_when_the_leader_sends_as_many_as_it_may() {
    let world = World::new(&SnapshotLimits { sends: 1, ..limits() });
    let own = world.publish(1, GROUP, 100, b"the leader's");
    let other = world.publish(3, GROUP, 100, b"the other's");
    applied(&world, 3, 100);
    world.errand(2, GROUP, &own, &[3]).run().await.unwrap();
    assert_eq!(world.bytes(2, GROUP, own.info.snapshot.last), b"the leader's");
    let _busy = world.desks[&NodeId(1)].sending.clone().acquire_owned().await.unwrap();
    world.errand(4, GROUP, &own, &[3]).run().await.unwrap();
    assert_eq!(world.bytes(4, GROUP, other.info.snapshot.last), b"the other's");

    // Never: it waits.
    let never = SnapshotLimits { sends: 1, source: SnapshotSourcing::Never, ..limits() };
    let world = World::new(&never);
    let own = world.publish(1, GROUP, 100, b"the leader's");
    world.publish(3, GROUP, 100, b"the other's");
    applied(&world, 3, 100);
    let busy = world.desks[&NodeId(1)].sending.clone().acquire_owned().await.unwrap();
    let errand = tokio::spawn(world.errand(2, GROUP, &own, &[3]).run());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!errand.is_finished() && world.opened.lock().unwrap().is_empty());
    drop(busy);
    errand.await.unwrap().unwrap();
    assert_eq!(world.bytes(2, GROUP, own.info.snapshot.last), b"the leader's");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_deposed_meanwhile_ends_what_it_has_asked_for() {
    let rate = std::num::NonZeroU64::new(8 << 10);
    let world = World::new(&SnapshotLimits { receive_rate: rate, ..always() });
    let own = world.publish(1, GROUP, 100, b"the leader's");
    world.publish(3, GROUP, 100, &state(SIZE, 1));
    applied(&world, 3, 100);
    let errand = tokio::spawn(world.errand(2, GROUP, &own, &[3]).run());
    while world.desks[&NodeId(2)].board.counts().received_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let activity = world.desks[&NodeId(1)].board.progress().remove(0).activity;
    assert_eq!(activity, SnapshotActivity::Relaying { to: NodeId(2), source: NodeId(3) });
    errand.abort();
    world.idle().await;
    assert_eq!(world.told(2, GROUP), []);
    assert!(world.desks[&NodeId(3)].board.counts().sent_bytes < SIZE as u64);
}
