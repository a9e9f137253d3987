//! Who changes a recording is found out: by the step, or by the invariant.

use std::{
    path::{Path, PathBuf},
    slice::from_ref,
};

use quorate_core::{
    Action, Body, Input, NodeId, Term,
    recording::{Begin, Note, NoteRef, Origin, Polled},
};
use quorate_sim::flight::{FlightError, FlightViolation, replay};

use crate::{
    cluster::{ACTIONS, Cluster, WHOLE, busy},
    notes::{Notes, packed, parse, read, write},
};

fn violation(files: &[PathBuf], changed: &Path, notes: &Notes) -> FlightViolation {
    write(changed, notes);
    match replay(files) {
        Err(FlightError::Violated(violation)) => *violation,
        other => panic!("{other:?}"),
    }
}

fn is_persisted(note: &[u8]) -> bool {
    matches!(parse(note), Note::Step(_, Input::Persisted(_)))
}

fn polled(note: &[u8]) -> Option<Polled> {
    if let Note::Polled(polled) = parse(note) { Some(polled) } else { None }
}

fn first_segment(cluster: &Cluster) -> PathBuf {
    cluster.segments(NodeId(1)).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_or_an_input_that_was_changed_is_named_with_its_step() {
    let cluster = busy(WHOLE).await;
    let file = first_segment(&cluster);
    let whole = read(&file);
    write(&file, &whole);
    replay(from_ref(&file)).unwrap();

    let mut notes = whole.clone();
    let (at, other) = (100..).find_map(|at| Some((at, polled(&notes[at])?))).unwrap();
    notes[at] = packed(&NoteRef::Polled(Polled { digest: *b"00c0ffee", ..other }));
    let found = violation(from_ref(&file), &file, &notes);
    let steps = notes[..at].iter().filter(|note| matches!(parse(note), Note::Step(..))).count();
    assert_eq!((found.invariant, found.note, found.node), ("replay", at as u64 + 1, 1), "{found}");
    assert_eq!(found.step, steps as u64);

    // An input is gone: the core does something else.
    let mut notes = whole.clone();
    let at = (100..).find(|at| is_persisted(&notes[*at])).unwrap();
    notes.remove(at);
    let found = violation(from_ref(&file), &file, &notes);
    assert!(["replay", "contract"].contains(&found.invariant) && found.note > at as u64, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_its_write_is_durable_is_d2() {
    let cluster = busy(ACTIONS).await;
    let acks = |notes: &Notes, at: usize| {
        // A poll right after it, in which an acknowledgement leaves. Early on the same commit may hold a vote, which is D1's.
        let end = at + (1..).find(|n| !matches!(parse(&notes[at + n]), Note::Action(_)))?;
        let ack = |note: &Vec<u8>| matches!(parse(note), Note::Action(Action::Send { message, .. }) if matches!(message.body, Body::Appended { .. }));
        let found = is_persisted(&notes[at]) && polled(&notes[end]).is_some();
        (found && at > 200 && notes[at + 1..end].iter().any(ack)).then_some(end)
    };
    let (file, mut notes, at, end) = [1, 2, 3]
        .into_iter()
        .find_map(|id| {
            let file = cluster.segments(NodeId(id)).remove(0);
            let notes = read(&file);
            let (at, end) = (0..notes.len() - 1).find_map(|at| Some((at, acks(&notes, at)?)))?;
            Some((file, notes, at, end))
        })
        .unwrap();
    // What it did then is done before it is told that the write is durable.
    notes[at..=end].rotate_left(1);
    let found = violation(from_ref(&file), &file, &notes);
    assert_eq!((found.invariant, found.note), ("D2", end as u64), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_goes_back_is_found_within_a_life_and_over_a_restart() {
    let cluster = busy(ACTIONS).await;
    let restarted = [1, 2, 3].map(NodeId).into_iter().find(|id| cluster.segments(*id).len() == 2).unwrap();
    let files = cluster.segments(restarted);
    let whole = read(&files[1]);

    let mut notes = whole.clone();
    let Note::Begin(head, Begin::Start(mut start)) = parse(&notes[0]) else { panic!("a life starts") };
    start.1.hard_state.vote = Some(NodeId(99));
    notes[0] = packed(&NoteRef::Begin(&head, Origin::Start(&start.0, &start.1)));
    let found = violation(&files, &files[1], &notes);
    assert!(["D3", "S2"].contains(&found.invariant), "{found}");
    write(&files[1], &whole);

    let mut notes = read(&files[0]);
    let changed = notes.iter_mut().find_map(|note| match parse(note) {
        Note::Action(Action::Write(mut write)) if write.hard_state.is_some_and(|state| state.term.0 > 1) => {
            write.hard_state.as_mut()?.term = Term(0);
            *note = packed(&NoteRef::Action(&Action::Write(write)));
            Some(())
        }
        _ => None,
    });
    changed.expect("the node that was stopped led a second term");
    // The digest is of what was done, and so another.
    let is_changed = |note: &Vec<u8>| matches!(parse(note), Note::Action(Action::Write(write)) if write.hard_state.is_some_and(|state| state.term == Term(0)));
    let at = notes.iter().position(is_changed).unwrap();
    let (at, other) = (at..).find_map(|at| Some((at, polled(&notes[at])?))).unwrap();
    notes[at] = packed(&NoteRef::Polled(Polled { digest: [0; 8], ..other }));
    let found = violation(&files, &files[0], &notes);
    assert_eq!(found.invariant, "S7", "{found}");
}
