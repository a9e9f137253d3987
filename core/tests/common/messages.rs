//! Messages for property tests: every kind, with numbers that are small, huge or live.

use proptest::prelude::*;
use quorate_core::{Body, Few, Incarnation, Index, LogId, Message, RequestId, Run, Term};

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

pub fn body() -> impl Strategy<Value = Body> {
    let n = number;
    prop_oneof![
        (request_id(), log_id()).prop_map(|(id, last)| Body::PreVote { id, last }),
        (request_id(), any::<bool>()).prop_map(|(id, granted)| Body::PreVoteReply { id, granted }),
        log_id().prop_map(|last| Body::Vote { last }),
        any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
        (entries(), n()).prop_map(|((prev, entries), commit)| Body::Append {
            prev,
            commit: Index(commit),
            entries
        }),
        n().prop_map(|up_to| Body::Appended { up_to: Index(up_to) }),
        (n(), log_id()).prop_map(|(prev, hint)| Body::Conflict { prev: Index(prev), hint }),
        (n(), n()).prop_map(|(commit, round)| Body::Heartbeat { commit: Index(commit), round }),
        n().prop_map(|round| Body::HeartbeatReply { round }),
        n().prop_map(|commit| Body::Commit { commit: Index(commit) }),
        request_id().prop_map(|id| Body::ReadIndex { id }),
        (request_id(), prop::option::of(n().prop_map(Index)))
            .prop_map(|(id, index)| Body::ReadIndexReply { id, index }),
    ]
}

pub fn message() -> impl Strategy<Value = Message> {
    (number(), body()).prop_map(|(term, body)| Message { term: Term(term), body })
}
