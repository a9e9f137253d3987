//! Was every client told the truth? The nodes are not asked; what clients saw must be possible.
//!
//! - Each key is linearizable: there is an order of its requests, within their times, in which every answer is right. What
//!   nobody knows the outcome of may have been done at any time later, or never. What was refused was never done. At the end
//!   every key was read from every node, so a lost write is no order's.
//! - Over all keys: the store's revision never goes back from what was told before the request began, and no two writes
//!   have the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_sim::workload::{
    Bounds, Completed, Opinion, query,
    register::{Change, Register},
    search,
};

use crate::history::{Op, Outcome, Request};

/// What the search may take, for each key.
const BOUNDS: Bounds = Bounds {
    operations: 10_000,
    unknown: 100,
    configurations: 200_000,
    steps: 20_000_000,
    effects_are_known: false,
};

/// The judgement.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Verdict {
    /// Requests that were judged.
    pub requests: usize,
    /// Of them, answered.
    pub answered: usize,
    /// Refused.
    pub refused: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// Keys whose histories are linearizable.
    pub linearizable: usize,
    /// Keys that are beyond what the search may take.
    pub undecided: usize,
    /// What can't be, in words.
    pub violations: Vec<String>,
}

/// Judges what clients saw.
#[must_use]
pub fn judge(ops: &[Op]) -> Verdict {
    let count = |of: fn(&Outcome) -> bool| ops.iter().filter(|op| of(&op.outcome)).count();
    let mut verdict = Verdict {
        requests: ops.len(),
        answered: ops.iter().filter(|op| op.is_ok()).count(),
        refused: count(|outcome| matches!(outcome, Outcome::Refused(_))),
        unknown: count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        ..Verdict::default()
    };
    let mut by_key: BTreeMap<u32, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        by_key.entry(op.key).or_default().push(op);
    }
    for (key, mut ops) in by_key {
        ops.sort_by_key(|op| op.invoked);
        let history: Vec<Completed> = ops.iter().filter_map(|op| completed(op)).collect();
        match search::<Register>(&history, &BOUNDS) {
            Opinion::Linearizable { undecided: 0, .. } => verdict.linearizable += 1,
            Opinion::Linearizable { .. } => verdict.undecided += 1,
            Opinion::Impossible { what, .. } => verdict.violations.push(format!("key {key}: {what}")),
        }
    }
    verdict.violations.extend(revisions(ops));
    verdict
}

/// As the search takes it; `None` if it was never done.
fn completed(op: &Op) -> Option<Completed> {
    // All are judged key by key: the search's own key is always the same.
    let command = match op.request {
        Request::Get => query(0),
        Request::Put { value } => Change::Write { value }.encode(0),
        Request::Cas { expected, value } => Change::CompareAndSet { expected, value }.encode(0),
    };
    let reply = match op.outcome {
        Outcome::Read(value) | Outcome::Written(value) => Some(Bytes::copy_from_slice(&value.to_le_bytes())),
        Outcome::Compared { equal, before } => {
            Some(before.to_le_bytes().into_iter().chain([u8::from(equal)]).collect())
        }
        Outcome::Unknown(_) => None,
        Outcome::Refused(_) => return None,
    };
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Some(Completed {
        client: op.client,
        op: command,
        write: !matches!(op.request, Request::Get),
        invoked: micros(op.invoked),
        returned: reply.is_some().then(|| micros(op.ended)),
        index: None,
        reply,
    })
}

/// Revisions go forward in real time, and each is of one write. At most one of each kind of violation is told.
fn revisions(ops: &[Op]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut writes: BTreeMap<i64, &Op> = BTreeMap::new();
    for op in ops.iter().filter(|op| op.has_written()) {
        if let Some(other) = writes.insert(op.revision, op) {
            violations.push(format!("two writes have one revision: {other:?} and {op:?}"));
            break;
        }
    }
    // What ends at the very moment at which something begins is taken to overlap it.
    let ok: Vec<&Op> = ops.iter().filter(|op| op.is_ok()).collect();
    let mut events: Vec<_> = ok.iter().enumerate().map(|(i, op)| (op.invoked, false, i)).collect();
    events.extend(ok.iter().enumerate().map(|(i, op)| (op.ended, true, i)));
    events.sort_unstable();
    let mut newest: Option<&Op> = None;
    let mut floors: Vec<Option<&Op>> = vec![None; ok.len()];
    for (_, ends, i) in events {
        let op = ok[i];
        if !ends {
            floors[i] = newest;
            continue;
        }
        let least = floors[i].map_or(0, |before| before.revision + i64::from(op.has_written()));
        if op.revision < least {
            let before = floors[i];
            violations.push(format!("the revision went back: {op:?}, begun after the end of {before:?}"));
            break;
        }
        if newest.is_none_or(|newest| newest.revision < op.revision) {
            newest = Some(op);
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn op(request: Request, from: u64, to: u64, outcome: Outcome, revision: i64) -> Op {
        let [invoked, ended] = [from, to].map(Duration::from_millis);
        Op { client: 0, node: 0, key: 3, request, invoked, ended, outcome, revision }
    }

    fn put(value: u64, from: u64, to: u64, before: u64, revision: i64) -> Op {
        op(Request::Put { value }, from, to, Outcome::Written(before), revision)
    }

    fn get(from: u64, to: u64, value: u64, revision: i64) -> Op {
        op(Request::Get, from, to, Outcome::Read(value), revision)
    }

    fn lost(request: Request, from: u64, to: u64) -> Op {
        op(request, from, to, Outcome::Unknown(String::new()), 0)
    }

    #[test]
    fn what_can_be_is_let_pass() {
        let cas = |expected, value| Request::Cas { expected, value };
        let ops = [
            put(1, 0, 10, 0, 2),
            lost(Request::Put { value: 2 }, 20, 30),
            get(40, 50, 1, 2),
            // The lost one takes effect later.
            get(60, 70, 2, 3),
            op(cas(2, 5), 80, 90, Outcome::Compared { equal: true, before: 2 }, 4),
            op(cas(2, 6), 100, 110, Outcome::Compared { equal: false, before: 5 }, 4),
            op(Request::Put { value: 9 }, 120, 130, Outcome::Refused(String::new()), 0),
            get(140, 150, 5, 4),
        ];
        let verdict = judge(&ops);
        assert_eq!(verdict.violations, Vec::<String>::new());
        assert_eq!((verdict.linearizable, verdict.undecided), (1, 0));
        assert_eq!((verdict.answered, verdict.refused, verdict.unknown), (6, 1, 1));
    }

    #[test]
    fn what_can_not_be_is_told() {
        for (what, ops) in [
            ("a lost write", vec![put(1, 0, 10, 0, 2), get(20, 30, 0, 2)]),
            ("a stale read", vec![put(1, 0, 10, 0, 2), put(2, 20, 30, 1, 3), get(40, 50, 1, 3)]),
            ("a write from before", vec![put(1, 0, 10, 0, 2), put(2, 20, 30, 0, 3)]),
            (
                "a refused write that was done",
                vec![
                    op(Request::Put { value: 9 }, 0, 10, Outcome::Refused(String::new()), 0),
                    get(20, 30, 9, 2),
                ],
            ),
            (
                "a lost write that was done, and undone",
                vec![
                    put(1, 0, 10, 0, 2),
                    lost(Request::Put { value: 2 }, 20, 30),
                    get(40, 50, 2, 3),
                    get(60, 70, 1, 3),
                ],
            ),
            ("the same revision twice", vec![put(1, 0, 10, 0, 2), put(2, 5, 30, 1, 2)]),
        ] {
            assert!(!judge(&ops).violations.is_empty(), "{what}");
        }
    }

    #[test]
    fn revisions_are_held_against_each_other_over_all_keys() {
        let mut other = get(20, 30, 0, 1);
        other.key = 4;
        let violations = judge(&[put(1, 0, 10, 0, 2), other]).violations;
        assert!(violations.len() == 1 && violations[0].contains("went back"), "{violations:?}");
    }
}
