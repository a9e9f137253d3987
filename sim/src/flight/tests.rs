use std::{cell::RefCell, collections::BTreeMap, fs, path::PathBuf, rc::Rc};

use quorate_core::{
    Action, Config, HardState, Incarnation, Index, Instant, Membership, NodeId, Proposal, Raft, Recovered,
    Term, TermStart, Token,
    recording::{Digest, Head, MAGIC, NoteRef, Origin, Polled, VERSION, pack},
};
use serde::Serialize;
use tempfile::TempDir;

use super::*;
use crate::{
    violation::Verdict,
    watch::{Seen, Watch},
};

/// A segment: the notes in it.
type Notes = Vec<Vec<u8>>;

fn packed(item: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(item, Payloads::Kept, &mut bytes);
    bytes
}

/// As recorders write it.
fn begin(head: &Head, origin: Origin<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(&NoteRef::Begin(head, origin), Payloads::LeftOut, &mut bytes);
    bytes
}

fn head(incarnation: u64, segment: u64, steps: u64) -> Head {
    Head {
        release: "test".to_owned(),
        node: NodeId(1),
        group: GroupId(0),
        incarnation: Incarnation(incarnation),
        segment,
        steps,
        unix_us: 1000 + steps,
        now: Instant(50),
        payloads: Payloads::Kept,
    }
}

fn fresh() -> Recovered {
    Recovered::fresh(Incarnation(1), Membership::of_voters([NodeId(1)]))
}

fn start(recovered: &Recovered) -> Vec<u8> {
    let incarnation = recovered.incarnation.0;
    begin(&head(incarnation, 0, 0), Origin::Start(&Config::new(NodeId(1)), recovered))
}

/// A cluster of one, recorded: it is elected, and takes some words. Each step of it is in a segment of its own.
fn recorded() -> Vec<Notes> {
    let mut raft = Raft::new(Config::new(NodeId(1)), fresh(), Instant(50)).unwrap();
    let (mut segments, mut steps, mut applied) = (vec![vec![start(&fresh())]], 0, Vec::new());
    let propose = |token| Input::Propose(Proposal::one(Token(token), b"word"));
    let mut inputs = vec![propose(2), propose(1), Input::Tick];
    let mut now = Instant(60);
    while let Some(input) = inputs.pop() {
        if steps > 0 {
            segments.push(vec![begin(&head(1, steps, steps), Origin::Full(&raft))]);
        }
        let notes = segments.last_mut().unwrap();
        now = now.plus(10);
        notes.push(packed(&NoteRef::Step(now, &input)));
        raft.step(now, input).unwrap();
        steps += 1;
        let (mut count, mut digest) = (0, Digest::default());
        for action in raft.drain().collect::<Vec<_>>() {
            digest.action(&action);
            count += 1;
            match action {
                Action::Write(write) => inputs.push(Input::Persisted(write.into_receipt())),
                Action::Apply(apply) => applied.push(apply.last()),
                _ => {}
            }
        }
        let digest = digest.value().to_le_bytes();
        notes.push(packed(&NoteRef::Polled(Polled { count, more: false, digest })));
        inputs.extend(applied.pop().map(|up_to| Input::Applied { up_to }));
    }
    segments.last_mut().unwrap().push(packed(&NoteRef::End(Ended::Stopped)));
    segments
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

/// Writes the segments, each in chunks of so many notes.
fn write(segments: &[Notes], at_once: usize) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (n, notes) in segments.iter().enumerate() {
        let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        for chunk in notes.chunks(at_once) {
            let chunk = chunk.concat();
            bytes.extend_from_slice(&u32::try_from(chunk.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(&chunk).to_le_bytes());
            bytes.extend_from_slice(&chunk);
        }
        files.push(dir.path().join(format!("{n:03}.flight")));
        fs::write(files.last().unwrap(), bytes).unwrap();
    }
    (dir, files)
}

fn flown(segments: &[Notes]) -> (Result<FlightReport, FlightError>, BTreeMap<String, u64>) {
    let (dir, _) = write(segments, 3);
    let onlooker = Onlooker::default();
    let watchers: Vec<Box<dyn Watch>> = vec![Box::new(onlooker.clone())];
    let (result, _) = replay_watched(&[dir.path().to_owned()], Trace::Off, watchers);
    let seen = onlooker.0.borrow().clone();
    (result, seen)
}

fn violated(segments: &[Notes]) -> FlightViolation {
    match flown(segments).0 {
        Err(FlightError::Violated(violation)) => *violation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn onlookers_see_a_flight_as_they_see_a_run() {
    let segments = recorded();
    let (result, seen) = flown(&segments);
    let report = result.unwrap();
    assert_eq!((report.committed, report.leaders, report.nodes[0].lives), (3, 1, 1), "{report:?}");
    assert_eq!((report.nodes[0].segments, report.nodes[0].midway), (segments.len() as u64, 0));
    let of = |kind: &str| seen.get(kind).copied().unwrap_or(0);
    assert_eq!((of("Provisioned"), of("Started"), of("Crashed")), (1, 1, 1));
    assert_eq!((of("Stepped"), of("Durable"), of("Applied")), (report.nodes[0].steps, 4, 3), "{seen:?}");
}

/// Whatever was under way there: its vote, its writes, a proposal.
#[test]
fn a_flight_may_begin_with_any_segment_and_end_with_any() {
    let segments = recorded();
    for first in 0..segments.len() {
        let report = flown(&segments[first..]).0.unwrap_or_else(|error| panic!("from {first}: {error}"));
        let node = &report.nodes[0];
        assert_eq!(node.midway, u64::from(first > 0), "{node:?}");
        assert_eq!((node.steps, node.ended), ((segments.len() - first) as u64, Some(Ended::Stopped)));
        for end in first + 1..segments.len() {
            let report = flown(&segments[first..end]).0.unwrap();
            assert_eq!(report.nodes[0].ended, None);
        }
        // A segment is missing: that is a gap.
        if first > 0 && first + 1 < segments.len() {
            let mut others = segments.clone();
            others.remove(first);
            let report = flown(&others).0.unwrap_or_else(|error| panic!("without {first}: {error}"));
            assert_eq!((report.nodes[0].gaps, report.nodes[0].midway), (1, 0));
        }
    }
}

/// Not even when each segment alone is what it says.
#[test]
fn a_core_that_is_not_the_one_to_which_the_steps_have_led_is_found() {
    let mut segments = recorded();
    let mut raft = Raft::new(Config::new(NodeId(1)), fresh(), Instant(50)).unwrap();
    raft.step(Instant(71), Input::Tick).unwrap();
    let _polled = raft.drain().count();
    segments[1][0] = begin(&head(1, 1, 1), Origin::Full(&raft));
    let found = violated(&segments);
    assert_eq!((found.invariant, found.step, found.note), ("replay", 1, 1), "{found}");
    let mut segments = recorded();
    segments[1][0] = begin(&head(1, 1, 2), Origin::Full(&raft));
    assert!(violated(&segments).what.contains("has taken 1 steps"));
    // Behind a gap it is believed, but not that it goes back.
    let mut segments = recorded();
    let raft = Raft::new(Config::new(NodeId(1)), fresh(), Instant(50)).unwrap();
    segments[3][0] = begin(&head(1, 3, 3), Origin::Gap(&raft));
    assert_eq!(violated(&segments).invariant, "S7");
}

#[test]
fn a_second_life_begins_where_the_first_one_ended() {
    let mut segments = recorded();
    let right = again(&|_| {});
    let forgot = again(&|recovered| recovered.last.0 = 1);
    let voted = again(&|recovered| recovered.hard_state.vote = Some(NodeId(2)));
    let longer = again(&|recovered| recovered.last = Index(4));
    let later = again(&|recovered| recovered.incarnation = Incarnation(5));
    segments.push(right);
    flown(&segments).0.unwrap();
    let mut with = |start: &Notes| {
        *segments.last_mut().unwrap() = start.clone();
        violated(&segments)
    };
    assert_eq!((with(&forgot).invariant, with(&voted).invariant), ("D3", "D3"));
    assert_eq!(with(&longer).invariant, "D3");
    assert_eq!(with(&longer).note, 1);
    // A life in between may not be here.
    *segments.last_mut().unwrap() = later;
    flown(&segments).0.unwrap();
    // Cut off, more may have been done than is recorded, but not less.
    let before = segments.len() - 2;
    segments[before].pop();
    let mut with = |start: &Notes| {
        *segments.last_mut().unwrap() = start.clone();
        violated(&segments)
    };
    assert_eq!((with(&forgot).invariant, with(&voted).invariant), ("D3", "D3"));
    *segments.last_mut().unwrap() = longer;
    flown(&segments).0.unwrap();
}

/// The life after the first.
fn again(change: &dyn Fn(&mut Recovered)) -> Notes {
    let mut recovered = fresh();
    recovered.incarnation = Incarnation(2);
    recovered.hard_state = HardState { term: Term(1), vote: Some(NodeId(1)) };
    recovered.terms = vec![TermStart { first: Index(1), term: Term(1) }];
    recovered.last = Index(3);
    recovered.memberships = vec![(Index(1), recovered.base_membership.clone())];
    change(&mut recovered);
    vec![start(&recovered)]
}

#[test]
fn what_a_recording_says_that_cannot_be_is_refused_by_note() {
    let segments = recorded();
    let other = {
        let mut head = head(1, 0, 0);
        head.node = NodeId(1);
        head.incarnation = Incarnation(9);
        begin(&head, Origin::Start(&Config::new(NodeId(1)), &fresh()))
    };
    let invalid = {
        let mut config = Config::new(NodeId(1));
        config.max_actions = 0;
        begin(&head(1, 0, 0), Origin::Start(&config, &fresh()))
    };
    let few = packed(&NoteRef::Polled(Polled { count: 3, more: false, digest: [0; 8] }));
    let action = packed(&NoteRef::Action(&Action::Event(quorate_core::Event::Stopped)));
    for (at, note, expected) in [
        (1, vec![9], "note 1: it doesn't say whose it is"),
        (1, other, "note 1: another node or life starts"),
        (1, invalid, "note 1: no node starts from this"),
        (2, vec![9], "note 2: "),
        (2, vec![1], "note 2: "),
        (2, [action, few].concat(), "note 3: other actions than are counted"),
    ] {
        let mut segments = segments.clone();
        segments[0][at - 1] = note;
        let error = flown(&segments).0.unwrap_err();
        assert!(matches!(error, FlightError::Malformed { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// As a killed process leaves it: wherever the file ends, what is there replays, and a part of a chunk is no error. In the middle
/// of a life it is one.
#[test]
fn a_recording_may_be_cut_off_anywhere_but_not_in_the_middle() {
    let segments = recorded();
    let (dir, files) = write(&segments, 1);
    let last = files.last().unwrap();
    let whole = fs::read(last).unwrap();
    let mut torn = 0;
    for end in 1..whole.len() {
        fs::write(last, &whole[..end]).unwrap();
        let report = replay(&[dir.path().to_owned()]).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
        torn += u32::from(report.nodes[0].torn);
        assert_eq!(report.nodes[0].ended, None);
    }
    assert!(torn > 20, "{torn}");
    // Zeros, as after a loss of power.
    fs::write(last, [&whole[..whole.len() - 9], [0; 9].as_slice()].concat()).unwrap();
    assert!(replay(&[dir.path().to_owned()]).unwrap().nodes[0].torn);
    fs::write(last, &whole).unwrap();
    let whole = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &whole[..whole.len() - 1]).unwrap();
    let error = replay(&[dir.path().to_owned()]).unwrap_err();
    assert!(error.to_string().contains("that life goes on in the next segment"), "{error}");
    // What is damaged in the middle of a file was no crash.
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&files[1], &damaged).unwrap();
    assert!(replay(&[dir.path().to_owned()]).unwrap_err().to_string().contains("checksum"));
}
