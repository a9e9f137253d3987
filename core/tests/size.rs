//! What a group costs in memory when nothing happens: a process may host tens of thousands.

use std::{alloc::System, collections::VecDeque};

use quorate_core::{
    Action, Batch, Config, Incarnation, Input, Instant, Membership, NodeId, Proposal, Raft, Recovered,
    RoleKind, Token,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn heap() -> usize {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated as isize - stats.bytes_deallocated as isize) as usize
}

/// Three nodes that do all at once.
fn settle(nodes: &mut [Raft], now: Instant) {
    let mut inputs: VecDeque<(usize, Input)> = VecDeque::new();
    loop {
        for (at, raft) in nodes.iter_mut().enumerate() {
            let from = raft.id();
            while let Some(action) = raft.poll() {
                match action {
                    Action::Send { to, message } => {
                        inputs.push_back((to.0 as usize - 1, Input::Receive { from, message }));
                    }
                    Action::Write(write) => inputs.push_back((at, Input::Persisted(write.into_receipt()))),
                    Action::Apply(apply) => inputs.push_back((at, Input::Applied { up_to: apply.last() })),
                    _ => {}
                }
            }
        }
        let Some((to, input)) = inputs.pop_front() else { return };
        let _refused = nodes[to].step(now, input);
    }
}

fn elect() -> Vec<Raft> {
    let membership = Membership::of_voters([1, 2, 3].map(NodeId));
    let mut nodes: Vec<Raft> = (1..=3)
        .map(|id| {
            let fresh = Recovered::fresh(Incarnation(1), membership.clone());
            Raft::new(Config::new(NodeId(id)), fresh, Instant(0)).unwrap()
        })
        .collect();
    nodes[0].step(NOW, Input::Tick).unwrap();
    settle(&mut nodes, NOW);
    assert_eq!(nodes[0].role(), RoleKind::Leader);
    nodes
}

const NOW: Instant = Instant(10_000_000);

/// In small and in big batches, and many of them before anything is polled; reads as well.
fn work(nodes: &mut [Raft]) {
    let commands: Vec<[u8; 64]> = vec![[7; 64]; 200];
    for n in 0..500_u64 {
        for part in 0..n % 7 {
            let batch = Batch::from(&commands[..=(n % 199) as usize]);
            nodes[0].step(NOW, Input::Propose(Proposal::new(Token(n << 20 | part << 10), batch))).unwrap();
            nodes[0].step(NOW, Input::read(Token(1 << 60 | n << 20 | part))).unwrap();
        }
        settle(nodes, NOW);
    }
    assert!(nodes.iter().all(|node| node.status().applied.0 > 100_000));
    // At rest: only heartbeats. The cache of entries, which is not what is measured, goes with its log.
    for n in 1..4 {
        let now = NOW.plus(n * 100_000);
        nodes[0].step(now, Input::Tick).unwrap();
        settle(nodes, now);
        for node in &mut *nodes {
            let snapshot = node.status().applied;
            node.step(now, Input::Compact { snapshot, keep: 0 }).unwrap();
        }
        settle(nodes, now);
    }
}

#[test]
fn a_group_at_rest_takes_less_than_four_kibibytes() {
    for worked in [false, true] {
        let mut nodes = elect();
        if worked {
            work(&mut nodes);
        }
        while let Some(node) = nodes.pop() {
            let (role, before) = (node.role(), heap());
            drop(node);
            let bytes = size_of::<Raft>() + before - heap();
            println!("{role:?}, {}: {bytes} bytes", if worked { "after work" } else { "elected" });
            assert!(bytes < 4096, "a {role:?} takes {bytes} bytes, {} of them inline", size_of::<Raft>());
        }
    }
}
