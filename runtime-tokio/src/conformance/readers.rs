//! Readers of the log beside its writer.

use std::{
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use quorate_core::{GroupId, Index, Load, LoadId, Loaded, LogId, Rebase, Run, Snapshot, Term};

use super::{
    Rng, Setup,
    erased::AnyReader,
    model::Spec,
    subject::{GROUP, Subject},
};

/// A load gives what it is asked for: from the first entry on, without a gap, never beyond the last, no more bytes than it
/// may, but one entry at least. Below the log it says that it is compacted; what was truncated since is not there.
///
/// # Panics
/// If not.
pub fn loads_what_is_asked_for(setup: &impl Setup) {
    // Ten bytes of header and payload an entry, in batches of 4, 4 and 1, then one of 1,000.
    let mut subject = Subject::new(setup, "loads");
    for (term, sizes) in [(1, &[5; 4][..]), (1, &[5; 4]), (2, &[5]), (3, &[995])] {
        let spec = subject.entries(term, subject.model.last().index.0 + 1, sizes);
        subject.commit(&spec);
    }
    for reopened in [false, true] {
        for first in 1..=10_u64 {
            for last in first..=12 {
                for max_bytes in [0, 1, 9, 10, 11, 35, 40, 41, 89, 999, 1_000, 1_090, usize::MAX] {
                    let found = subject.loads(first, last, max_bytes);
                    let Some(found) = found else {
                        subject.fail(format!("{first} is said to be compacted, but nothing is"));
                    };
                    let asked = format!("{first} to {last} in {max_bytes} bytes: found {found:?}");
                    let end = last.min(10);
                    if found.is_empty() {
                        subject.fail(format!("not even one entry for {asked}"));
                    }
                    if !found.iter().copied().eq(first..first + found.len() as u64)
                        || found.last() > Some(&end)
                    {
                        subject.fail(format!("other entries than for {asked}"));
                    }
                    let bytes = |index: u64| if index == 10 { 1_000 } else { 10 };
                    if found.len() > 1 && found.iter().map(|index| bytes(*index)).sum::<usize>() > max_bytes {
                        subject.fail(format!("more than fits for {asked}"));
                    }
                }
            }
        }
        if !reopened {
            subject.reopen();
        }
    }
    if subject.loads(11, 20, 100) != Some(Vec::new()) {
        subject.fail("something is found beyond the end");
    }
    let before = subject.store().reader();
    subject.truncate(7, Some((4, 1)));
    let load =
        |first| Load { id: LoadId::default(), first: Index(first), last: Index(20), max_bytes: 1 << 20 };
    let found = before.load(GROUP, &load(9));
    if subject.good("a load", found) != Loaded::Entries(quorate_core::Few::new()) {
        subject.fail("entries are found that were truncated since they were asked for");
    }
    subject.take(6, Vec::new());
    let compaction = subject.compaction(5);
    subject.commit(&compaction);
    for (first, gone) in [(0, true), (3, true), (5, true), (6, false), (7, false)] {
        let found = before.load(GROUP, &load(first));
        if (subject.good("a load", found) == Loaded::Compacted) != gone {
            subject
                .fail(format!("the log begins after 5: is {first} compacted? It is said that it isn't so"));
        }
    }
}

/// What a log was, one after the other: where it began and for each index the term.
#[derive(Default)]
struct States {
    all: Mutex<Vec<State>>,
    /// So many commits have returned: the log is in the state of this number, or in the next.
    committed: AtomicUsize,
    /// How often each reader has read.
    loads: [AtomicU64; READERS],
    done: AtomicBool,
}

const READERS: usize = 3;
/// So often each of them is to read.
const LOADS: u64 = 400;

#[derive(Clone)]
struct State {
    base: u64,
    /// Of the entries above it.
    terms: Vec<u64>,
}

impl State {
    fn term_at(&self, index: u64) -> Option<u64> {
        index.checked_sub(self.base + 1).and_then(|above| self.terms.get(above as usize).copied())
    }

    /// Could this log have been read so?
    fn gives(&self, first: u64, found: &Found) -> bool {
        match found {
            None => first <= self.base,
            Some(entries) if entries.is_empty() => first > self.base && self.term_at(first).is_none(),
            Some(entries) => entries.iter().all(|id| self.term_at(id.index.0) == Some(id.term.0)),
        }
    }
}

/// `None`: compacted.
type Found = Option<Vec<LogId>>;

/// Readers on other threads see the log as it was at one moment, while the writer appends, truncates, compacts and installs: never
/// entries of two logs, none that was never written, none from before a commit that had returned.
///
/// # Panics
/// If not.
pub fn reads_beside_the_writer(setup: &impl Setup) {
    let mut subject = Subject::new(setup, "readers beside a writer");
    let states = States { all: Mutex::new(vec![State { base: 0, terms: Vec::new() }]), ..States::default() };
    let readers: Vec<_> = (0..READERS).map(|_| subject.store().reader()).collect();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (n, reader) in readers.into_iter().enumerate() {
            let states = &states;
            // A reader is sent to its thread, and a clone is as good as it is.
            threads.push(scope.spawn(move || {
                let reader = if n == 0 { &*reader.another() } else { &*reader };
                read(reader, n, states)
            }));
        }
        write(&mut subject, &states);
        states.done.store(true, Ordering::Release);
        for thread in threads {
            if let Err(why) = thread.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                subject.fail(why);
            }
        }
    });
    subject.reopen();
}

/// What an entry holds, so that it can be told from any other.
fn payload(term: u64, index: u64) -> Vec<u8> {
    Rng::new(term.wrapping_mul(1_000_003) ^ index).bytes(8 + (index * 7 + term) as usize % 60)
}

fn write(subject: &mut Subject<'_>, states: &States) {
    let mut rng = Rng::new(7);
    let mut term = 1;
    let mut state = State { base: 0, terms: Vec::new() };
    for n in 0..20_000 {
        let idle = states.loads.iter().any(|loads| loads.load(Ordering::Relaxed) < LOADS);
        if n > 1_200 && !idle {
            return;
        }
        if idle {
            thread::yield_now();
        }
        let mut spec = Spec::new(GROUP);
        let last = state.base + state.terms.len() as u64;
        let newest = subject.model.newest().map_or(0, |shot| shot.last().index.0);
        let append = |spec: &mut Spec, state: &mut State, term: u64, count: u64| {
            let first = state.base + state.terms.len() as u64 + 1;
            let payloads: Vec<Vec<u8>> = (first..first + count).map(|index| payload(term, index)).collect();
            spec.entries.extend(Run::commands(Term(term), Index(first), &payloads));
            state.terms.extend((0..count).map(|_| term));
        };
        match rng.below(10) {
            0..=3 => append(&mut spec, &mut state, term, 1 + rng.below(9)),
            4..=6 if last > newest => {
                term += 1;
                let from = newest.max(state.base) + 1 + rng.below(last - newest.max(state.base));
                spec.hard_state = Some(quorate_core::HardState { term: Term(term), vote: None });
                spec.truncate = Some(Index(from));
                state.terms.truncate((from - state.base - 1) as usize);
                append(&mut spec, &mut state, term, 1 + rng.below(5));
            }
            7 | 8 if last > state.base + 4 => {
                if newest < last - 2 {
                    subject.take(last - 2, b"beside".to_vec());
                }
                let at = state.base + 1 + rng.below(last - 3 - state.base);
                spec.rebase = Some(Rebase::Compact(subject.snapshot_at(at)));
                state.terms.drain(..(at - state.base) as usize);
                state.base = at;
            }
            9 if rng.chance(20) => {
                term += 1;
                let shot = Subject::shot(term, last + 1 + rng.below(4), b"ahead".to_vec());
                subject.receive(&shot);
                spec.hard_state = Some(quorate_core::HardState { term: Term(term), vote: None });
                spec.rebase = Some(Rebase::Install(Snapshot::clone(&shot.info.snapshot)));
                state = State { base: shot.last().index.0, terms: Vec::new() };
            }
            _ => append(&mut spec, &mut state, term, 1),
        }
        if term > subject.model.hard_state.term.0 {
            spec.hard_state = Some(quorate_core::HardState { term: Term(term), vote: None });
        }
        states.all.lock().unwrap_or_else(PoisonError::into_inner).push(state.clone());
        subject.commit(&spec);
        states.committed.fetch_add(1, Ordering::Release);
    }
}

/// Reads what it likes until all is written. It ends early if it finds something wrong, and the writer goes on without it.
fn read(reader: &dyn AnyReader, n: usize, states: &States) -> Result<(), String> {
    let result = try_read(reader, n, states);
    states.loads[n].fetch_add(LOADS, Ordering::Relaxed);
    result
}

fn try_read(reader: &dyn AnyReader, n: usize, states: &States) -> Result<(), String> {
    let mut rng = Rng::new(n as u64);
    while !states.done.load(Ordering::Acquire) {
        let committed = states.committed.load(Ordering::Acquire);
        let now = states.all.lock().unwrap_or_else(PoisonError::into_inner)[committed].clone();
        let end = now.base + now.terms.len() as u64;
        let first = now.base.saturating_sub(2) + rng.below(end - now.base + 5);
        let last = first + rng.below(40);
        let max_bytes = [1, 100, 1_000, 1 << 30][rng.below(4) as usize];
        let load = Load { id: LoadId::default(), first: Index(first), last: Index(last), max_bytes };
        let loaded = reader.load(GroupId(0), &load).map_err(|error| format!("{load:?} fails: {error}"))?;
        let found = look(&load, &loaded)?;
        // What is being committed may be seen, and was noted before.
        let all = states.all.lock().unwrap_or_else(PoisonError::into_inner);
        if !all[committed..].iter().any(|state| state.gives(first, &found)) {
            return Err(format!(
                "{load:?} gives {found:?}, which the log has not held at any moment since it was asked"
            ));
        }
        drop(all);
        states.loads[n].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Are these entries that were written, in order?
fn look(load: &Load, loaded: &Loaded) -> Result<Found, String> {
    let Loaded::Entries(runs) = loaded else { return Ok(None) };
    let mut ids = Vec::new();
    let mut bytes = 0;
    for entry in runs.iter().flat_map(Run::iter) {
        let next = Index(load.first.0 + ids.len() as u64);
        if entry.id.index != next || next > load.last {
            return Err(format!("{load:?} gives {} where {next} is next", entry.id));
        }
        if entry.payload != payload(entry.id.term.0, next.0) {
            return Err(format!("{load:?} gives {} with other bytes than were written", entry.id));
        }
        bytes += entry.payload.len();
        ids.push(entry.id);
    }
    if ids.len() > 1 && bytes > load.max_bytes {
        return Err(format!("{load:?} gives {bytes} bytes"));
    }
    Ok(Some(ids))
}
