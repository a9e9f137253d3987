use std::{cell::RefCell, collections::BTreeMap, io::Cursor, path::Path, rc::Rc};

use quorate_core::{
    Action, Config, HardState, Incarnation, Index, Instant, Membership, NodeId, Proposal, Raft, Recovered,
    Term, TermStart, Token,
    recording::{Digest, End, Polled, VERSION},
};
use serde::Serialize;

use super::*;
use crate::{
    violation::Verdict,
    watch::{Seen, Watch},
};

fn line(item: &impl Serialize) -> String {
    serde_json::to_string(item).unwrap() + "\n"
}

/// A cluster of one, recorded: it is elected, and takes a word.
fn recorded() -> Vec<String> {
    let config = Config::new(NodeId(1));
    let recovered = Recovered::fresh(Incarnation(1), Membership::of_voters([NodeId(1)]));
    let mut raft = Raft::new(config.clone(), recovered.clone(), Instant(50)).unwrap();
    let release = "test".to_owned();
    let start = Start { version: VERSION, release, unix_us: 1000, now: Instant(50), config, recovered };
    let (mut lines, mut digest, mut steps, mut applied) =
        (vec![line(&start)], Digest::default(), 0, Vec::new());
    let mut inputs = vec![Input::Propose(Proposal::one(Token(1), b"word")), Input::Tick];
    let mut now = Instant(60);
    while let Some(input) = inputs.pop() {
        now = now.plus(10);
        lines.push(line(&(now, &input)));
        raft.step(now, input).unwrap();
        steps += 1;
        let mut count = 0;
        for action in raft.drain().collect::<Vec<_>>() {
            digest.add(&action);
            count += 1;
            match action {
                Action::Write(write) => inputs.push(Input::Persisted(write.into_receipt())),
                Action::Apply(apply) => applied.push(apply.last()),
                _ => {}
            }
        }
        lines.push(line(&Polled { count, more: false, steps, digest: digest.value(), actions: None }));
        inputs.extend(applied.pop().map(|up_to| Input::Applied { up_to }));
    }
    lines.push(line(&End { end: Ended::Stopped }));
    lines
}

/// Counts what it sees, by kind.
#[derive(Clone, Default, Debug)]
struct Onlooker(Rc<RefCell<BTreeMap<String, u64>>>);

impl Watch for Onlooker {
    fn see(&mut self, _: u64, seen: &Seen<'_>) -> Verdict {
        let text = format!("{seen:?}");
        let kind = text.split([' ', '(']).next().unwrap_or_default().to_owned();
        *self.0.borrow_mut().entry(kind).or_insert(0) += 1;
        Ok(())
    }
}

fn flown(lines: &[String]) -> (Result<FlightReport, FlightError>, BTreeMap<String, u64>) {
    let onlooker = Onlooker::default();
    let mut wire = Wire::new(Trace::Off, vec![Box::new(onlooker.clone())]);
    let recording = Recording::of(Path::new("test"), Box::new(Cursor::new(lines.concat())));
    let result = recording.and_then(|recording| fly(vec![recording], &mut wire));
    let seen = onlooker.0.borrow().clone();
    (result, seen)
}

fn violated(lines: &[String]) -> FlightViolation {
    match flown(lines).0 {
        Err(FlightError::Violated(violation)) => *violation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn onlookers_see_a_flight_as_they_see_a_run() {
    let lines = recorded();
    let (result, seen) = flown(&lines);
    let report = result.unwrap();
    assert_eq!((report.committed, report.leaders, report.nodes[0].lives), (2, 1, 1), "{report:?}");
    let of = |kind: &str| seen.get(kind).copied().unwrap_or(0);
    assert_eq!((of("Provisioned"), of("Started"), of("Crashed")), (1, 1, 1));
    assert_eq!((of("Stepped"), of("Durable"), of("Applied")), (report.nodes[0].steps, 3, 2), "{seen:?}");
}

#[test]
fn a_second_life_begins_where_the_first_one_ended() {
    let mut lines = recorded();
    let again = |change: &dyn Fn(&mut Recovered)| again(&recorded()[0], change);
    let right = again(&|_| {});
    let forgot = again(&|recovered| recovered.last.0 = 1);
    let voted = again(&|recovered| recovered.hard_state.vote = Some(NodeId(2)));
    let longer = again(&|recovered| recovered.last = Index(3));
    let twice = again(&|recovered| recovered.incarnation = Incarnation(1));
    lines.push(right);
    flown(&lines).0.unwrap();
    let mut with = |start: &String| {
        *lines.last_mut().unwrap() = start.clone();
        violated(&lines)
    };
    assert_eq!((with(&forgot).invariant, with(&voted).invariant), ("D3", "D3"));
    assert_eq!(with(&twice).invariant, "contract");
    assert_eq!(with(&twice).line, recorded().len() as u64 + 1);
    // Cut off, more may have been done than is recorded, but not less.
    let end = lines.len() - 2;
    lines.remove(end);
    let mut with = |start: &String| {
        *lines.last_mut().unwrap() = start.clone();
        violated(&lines)
    };
    assert_eq!((with(&forgot).invariant, with(&voted).invariant), ("D3", "D3"));
    *lines.last_mut().unwrap() = longer;
    flown(&lines).0.unwrap();
}

/// The life after the one that begins with `first`.
fn again(first: &str, change: &dyn Fn(&mut Recovered)) -> String {
    let mut start: Start = serde_json::from_str(first).unwrap();
    let recovered = &mut start.recovered;
    recovered.incarnation = Incarnation(2);
    recovered.hard_state = HardState { term: Term(1), vote: Some(NodeId(1)) };
    recovered.terms = vec![TermStart { first: Index(1), term: Term(1) }];
    recovered.last = Index(2);
    recovered.memberships = vec![(Index(1), recovered.base_membership.clone())];
    change(recovered);
    line(&start)
}

#[test]
fn what_a_recording_says_that_cannot_be_is_refused_by_line() {
    let lines = recorded();
    for (at, text, expected) in [
        (2, "[70]\n", "line 2: "),
        (2, "{\"p\":0,\"n\":7,\"d\":\"0\"}\n", "line 2: there are 0 steps before it, but 7 were recorded"),
        (3, "[70,{\"Propose\":\"=!\"}]\n", "line 3: "),
        (3, "{\"end\":\"well\"}\n", "line 3: "),
    ] {
        let mut lines = lines.clone();
        lines[at - 1] = text.to_owned();
        let error = flown(&lines).0.unwrap_err();
        assert!(matches!(error, FlightError::Malformed { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
