//! Messages for property tests: every kind, with numbers that are small, huge or live.

use proptest::prelude::*;
use quorate_core::{
    Body, Few, Incarnation, Index, LogId, Membership, MembershipParts, Message, NodeId, RequestId, Run,
    Snapshot, Term,
};

use super::run;

/// A number that matters: near zero, near the ends of the ranges, or anything.
pub fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..12_u64,
        1 => Just((1 << 63) - 1),
        1 => Just(1 << 63),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

pub fn log_id() -> impl Strategy<Value = LogId> {
    (number(), number()).prop_map(|(term, index)| LogId::new(Term(term), Index(index)))
}

pub fn request_id() -> impl Strategy<Value = RequestId> {
    (number(), number())
        .prop_map(|(incarnation, number)| RequestId { incarnation: Incarnation(incarnation), number })
}

/// Up to three runs; most follow each other as they should, from `first` on.
pub fn entries() -> impl Strategy<Value = (LogId, Few<Run>)> {
    let parts = prop::collection::vec((0..2_u64, 1..4_u64, 0..20_u64), 0..3);
    (0..6_u64, 0..8_u64, parts).prop_map(|(prev_term, prev_index, parts)| {
        let prev = if prev_term == 0 || prev_index == 0 {
            LogId::ZERO
        } else {
            LogId::new(Term(prev_term), Index(prev_index))
        };
        let (mut term, mut next) = (prev.term.0.max(1), prev.index.0 + 1);
        let mut runs = Few::new();
        for (more, count, skip) in parts {
            term += more;
            // Now and then there is a gap.
            next += u64::from(skip == 0);
            runs.push(run(term, next, count));
            next += count;
        }
        (prev, runs)
    })
}

/// Any membership that is one.
pub fn membership() -> impl Strategy<Value = Membership> {
    let ids = || {
        prop::collection::vec(1..9_u64, 0..4).prop_map(|ids| ids.into_iter().map(NodeId).collect::<Vec<_>>())
    };
    (ids(), ids(), ids(), any::<bool>(), any::<bool>()).prop_map(
        |(mut voters, outgoing, mut learners, all, held)| {
            voters.push(NodeId(1));
            learners.retain(|id| !voters.contains(id));
            let joining = if all { learners.clone() } else { Vec::new() };
            let held = held && !outgoing.is_empty();
            let parts = MembershipParts { voters, outgoing, learners, joining, next_id: NodeId(0), held };
            Membership::try_from(parts).unwrap()
        },
    )
}

pub fn body() -> impl Strategy<Value = Body> {
    let n = number;
    prop_oneof![
        (request_id(), log_id()).prop_map(|(id, last)| Body::PreVote { id, last }),
        (request_id(), any::<bool>()).prop_map(|(id, granted)| Body::PreVoteReply { id, granted }),
        (log_id(), log_id(), any::<bool>()).prop_map(|(last, commit, transfer)| Body::Vote {
            last,
            commit,
            transfer
        }),
        (any::<bool>(), log_id()).prop_map(|(granted, commit)| Body::VoteReply { granted, commit }),
        (entries(), n()).prop_map(|((prev, entries), commit)| Body::Append {
            prev,
            commit: Index(commit),
            entries
        }),
        n().prop_map(|up_to| Body::Appended { up_to: Index(up_to) }),
        (n(), log_id()).prop_map(|(prev, hint)| Body::Conflict { prev: Index(prev), hint }),
        (n(), n(), any::<bool>()).prop_map(|(commit, round, quiesce)| Body::Heartbeat {
            commit: Index(commit),
            round,
            quiesce
        }),
        (n(), any::<bool>()).prop_map(|(round, asleep)| Body::HeartbeatReply { round, asleep }),
        n().prop_map(|commit| Body::Commit { commit: Index(commit) }),
        request_id().prop_map(|id| Body::ReadIndex { id }),
        (request_id(), prop::option::of(n().prop_map(Index)))
            .prop_map(|(id, index)| Body::ReadIndexReply { id, index }),
        Just(Body::TimeoutNow),
        (log_id(), membership()).prop_map(|(last, membership)| Body::InstallSnapshot {
            snapshot: Box::new(Snapshot { last, membership })
        }),
    ]
}

pub fn message() -> impl Strategy<Value = Message> {
    (number(), body()).prop_map(|(term, body)| Message { term: Term(term), body })
}
