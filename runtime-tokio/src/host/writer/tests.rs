use std::sync::PoisonError;

use quorate_core::{Action, Body, Config, Index, LogId, Message, NodeId, Raft, Run, Term};

use super::*;
use crate::{
    host::stub::Stub,
    memory::MemoryStore,
    metrics::{Meters, MetricsLevel},
    thread::roll_call,
};

/// A follower, and the write that each of its leader's appends leads to.
fn append(raft: &mut Raft, index: u64) -> Write {
    let prev = LogId::new(Term(u64::from(index > 1)), Index(index - 1));
    let entries = Run::commands(Term(1), Index(index), &[b"word"]).into_iter().collect();
    let body = Body::Append { prev, commit: Index(0), entries };
    let message = Message { term: Term(1), body };
    raft.step(quorate_core::Instant(0), Input::Receive { from: NodeId(2), message }).unwrap();
    let mut writes = raft.drain().filter_map(|action| match action {
        Action::Write(write) => Some(write),
        _ => None,
    });
    let write = writes.next().unwrap();
    assert!(writes.next().is_none());
    write
}

#[test]
fn a_group_hears_of_a_commit_once_whosever_writes_lie_between_its_own() {
    let (alive, _ended) = roll_call();
    let meters = Meters::new(NodeId(1), MetricsLevel::Off);
    let mut writer = Writer::new(MemoryStore::default(), alive, meters.store().clone());
    let (groups, membership) = ([GroupId(1), GroupId(2)], Membership::of_voters([1, 2, 3].map(NodeId)));
    let (mut ports, mut rafts) = (Vec::new(), Vec::new());
    for group in groups {
        writer.store.create(group, &membership).unwrap();
        let (port, (answer, mut opened)) = (Arc::new(Stub::default()), oneshot::channel());
        let mut jobs = VecDeque::from([Job::Open(Opening { group, port: port.clone(), answer })]);
        assert!(writer.work(&mut jobs).is_continue());
        let mut config = Config::new(NodeId(1));
        config.group = group;
        let recovered = opened.try_recv().unwrap().unwrap().recovered;
        rafts.push(Raft::new(config, recovered, quorate_core::Instant(0)).unwrap());
        ports.push(port);
    }
    let turns = [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3)];
    let mut jobs = turns.map(|(group, index)| Job::Write(append(&mut rafts[group], index))).into();
    assert!(writer.work(&mut jobs).is_continue());
    for (port, writes) in ports.iter().zip([3, 2]) {
        let counts = port.counters.look();
        assert_eq!((counts.commits, counts.writes), (1, writes));
        let inputs = port.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let [Input::Persisted(receipt)] = &inputs[..] else { panic!("{inputs:?}") };
        assert_eq!(receipt.seq().0, writes);
    }
}
