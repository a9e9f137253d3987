//! What a store does and what it refuses, without any faults.

use quorate_core::{
    GroupId, HardState, Incarnation, Index, Load, LoadId, LogId, NodeId, Rebase, Run as Entries, Snapshot,
    Term,
};

use super::{
    Setup,
    model::{Spec, observe, voters},
    plan::Plan,
    run::Run,
    subject::{GROUP, Subject},
};

/// What is recovered is what was written: random calls on several groups, with recoveries and reopenings in between, held
/// against a model. Commits hold writes of several groups.
///
/// # Panics
/// If not.
pub fn round_trips(setup: &impl Setup) {
    for seed in 0..8 {
        let plan = Plan::new(seed, 60);
        let mut run = Run::in_place(setup, &plan);
        if let Err((step, stop)) = run.all(&plan) {
            panic!("seed {seed}, {}: {stop}", plan.tell(step));
        }
        run.drop_writers();
        if let Err(stop) = run.reopen() {
            panic!("seed {seed}, reopened at its end: {stop}");
        }
        for (group, _) in &plan.groups {
            let found = observe(run.store(), *group).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            if let Err(why) = plan.after(*group, plan.steps.len()).check(&found) {
                panic!("seed {seed}, reopened at its end, group {group}: {why}");
            }
        }
    }
}

/// Each recovery issues an incarnation that the group has never had, before and after the store is reopened. A group that
/// does not exist is not recovered, nor can it be read.
///
/// # Panics
/// If not.
pub fn incarnations_are_new(setup: &impl Setup) {
    let groups = [(GROUP, voters(3)), (GroupId(u64::MAX), voters(1))];
    let mut subject = Subject::with_groups(setup, "incarnations", &groups);
    let mut newest = [subject.incarnation, Incarnation(0)];
    for round in 0..12 {
        for (n, (group, _)) in groups.iter().enumerate() {
            for _ in 0..=round % 3 {
                let recovered = subject.store().recover(*group);
                let issued = subject.good("recovery", recovered).incarnation;
                if issued <= newest[n] {
                    subject.fail(format!("group {group} has had {}, and {issued} is issued", newest[n]));
                }
                newest[n] = issued;
            }
        }
        subject.incarnation = newest[0];
        if round % 2 == 0 {
            subject.reopen();
            newest[0] = subject.incarnation;
        }
    }
    let nobody = GroupId(5);
    let recovered = subject.store().recover(nobody);
    subject.refused("recovering a group that does not exist", recovered);
    let load = Load { id: LoadId::default(), first: Index(1), last: Index(1), max_bytes: 1 };
    let loaded = subject.store().reader().load(nobody, &load);
    subject.refused("reading a group that does not exist", loaded);
    let listed = subject.snapshots().list(nobody);
    subject.refused("listing the snapshots of a group that does not exist", listed);
    // It could be told from an error of a commit.
    subject.reopen();
}

/// A write that is not refused as it must be.
struct Misfit {
    what: &'static str,
    /// Something to be done before.
    prepare: fn(&mut Subject<'_>),
    spec: fn(&Subject<'_>) -> Spec,
    /// How far its number and its incarnation are off.
    seq: i64,
    life: i64,
}

const fn misfit(what: &'static str, spec: fn(&Subject<'_>) -> Spec) -> Misfit {
    Misfit { what, prepare: |_| {}, spec, seq: 0, life: 0 }
}

fn empty(_: &Subject<'_>) -> Spec {
    Spec::new(GROUP)
}

fn hard_state(term: u64, vote: Option<u64>) -> Spec {
    let mut spec = Spec::new(GROUP);
    spec.hard_state = Some(HardState { term: Term(term), vote: vote.map(NodeId) });
    spec
}

fn rebase(kind: fn(Snapshot) -> Rebase, term: u64, index: u64) -> Spec {
    let mut spec = Spec::new(GROUP);
    let last = LogId::new(Term(term), Index(index));
    spec.rebase = Some(kind(Snapshot { last, membership: voters(3) }));
    spec
}

fn truncation(from: u64, then: Option<u64>) -> Spec {
    let mut spec = Spec::new(GROUP);
    spec.truncate = Some(Index(from));
    spec.entries.extend(then.map(|first| Entries::noop(Term(5), Index(first))));
    spec
}

/// In a log of 1 to 4 in term 2 and 5 to 8 in term 5, whose vote is for node 1, with a snapshot at 6; it begins after 2.
const MISFITS: &[Misfit] = &[
    Misfit { life: -1, ..misfit("a write of the incarnation before", empty) },
    Misfit { life: 1, ..misfit("a write of an incarnation that is not yet", empty) },
    Misfit { seq: -1, ..misfit("a write that was made already", empty) },
    Misfit { seq: 1, ..misfit("a write after one that is missing", empty) },
    misfit("entries after a gap", |_| spec_of(5, 10)),
    misfit("entries that are there already", |_| spec_of(5, 8)),
    misfit("entries from the beginning", |_| spec_of(5, 1)),
    misfit("entries of an earlier term than the last one", |_| spec_of(4, 9)),
    misfit("a gap after a truncation", |_| truncation(7, Some(8))),
    misfit("an entry that a truncation leaves", |_| truncation(7, Some(6))),
    misfit("a truncation at the base", |_| truncation(2, None)),
    misfit("a truncation from 0", |_| truncation(0, None)),
    misfit("an earlier term", |_| hard_state(4, None)),
    misfit("another vote in the same term", |_| hard_state(5, Some(2))),
    misfit("a vote withdrawn in its term", |_| hard_state(5, None)),
    misfit("a compaction to where the log begins", |_| rebase(Rebase::Compact, 2, 2)),
    misfit("a compaction to what is gone", |_| rebase(Rebase::Compact, 2, 1)),
    misfit("a compaction to an entry of another term", |_| rebase(Rebase::Compact, 2, 5)),
    misfit("a compaction beyond the newest snapshot", |_| rebase(Rebase::Compact, 5, 7)),
    misfit("a compaction beyond the end of the log", |_| rebase(Rebase::Compact, 5, 9)),
    Misfit {
        prepare: |subject| subject.receive(&Subject::shot(6, 20, b"ahead".to_vec())),
        ..misfit("a compaction for which there is only a snapshot that is not in the log", |_| {
            rebase(Rebase::Compact, 5, 8)
        })
    },
    misfit("an installation without its snapshot", |_| rebase(Rebase::Install, 6, 20)),
    Misfit {
        prepare: |subject| subject.receive(&Subject::shot(6, 20, b"ahead".to_vec())),
        ..misfit("an installation of another term than its snapshot's", |_| rebase(Rebase::Install, 7, 20))
    },
    misfit("an installation where the log begins already", |_| rebase(Rebase::Install, 2, 2)),
];

fn spec_of(term: u64, first: u64) -> Spec {
    let mut spec = Spec::new(GROUP);
    spec.entries.push(Entries::noop(Term(term), Index(first)));
    spec
}

/// What does not fit is refused, and leaves nothing: writes of another incarnation or out of order, entries that don't
/// follow, terms and votes that go back, truncations below the base, compactions and installations whose snapshot is not
/// published. A write before it in the same commit may be there; those after it are not.
///
/// # Panics
/// If not.
pub fn refuses_what_does_not_fit(setup: &impl Setup) {
    for alone in [true, false] {
        for misfit in MISFITS {
            let mut subject = Subject::new(setup, misfit.what);
            subject.append(2, 4);
            subject.commit(&hard_state(5, Some(1)));
            subject.append(5, 4);
            subject.take(6, b"six".to_vec());
            let compaction = subject.compaction(2);
            subject.commit(&compaction);
            subject.check();
            (misfit.prepare)(&mut subject);
            // After another write, so that there is one before it.
            subject.commit(&Spec::new(GROUP));
            let spec = (misfit.spec)(&subject);
            let off = |n: u64, by: i64| n.saturating_add_signed(by);
            let before = u64::from(!alone);
            let write = spec.mint(
                Incarnation(off(subject.incarnation.0, misfit.life)),
                off(subject.next + before, misfit.seq),
            );
            let mut writes = Vec::new();
            if !alone {
                // It changes nothing, whether it is there or not.
                writes.push(Spec::new(GROUP).mint(subject.incarnation, subject.next));
            }
            writes.push(write);
            let mut after = Spec::new(GROUP);
            after.hard_state = Some(HardState { term: Term(9), vote: None });
            if !alone {
                writes.push(after.mint(subject.incarnation, subject.next + 2));
            }
            let result = subject.store().commit(&writes);
            subject.refused("it", result);
            subject.reopen();
        }
    }
    let mut subject = Subject::new(setup, "a write before the group was recovered");
    subject.reopen_unrecovered();
    for seq in [1, 2] {
        let write = Spec::new(GROUP).mint(Incarnation(subject.incarnation.0 + 1), seq);
        let result = subject.store().commit(&[write]);
        subject.refused("it", result);
        subject.reopen_unrecovered();
    }
    let mut subject = Subject::new(setup, "a write of a group that does not exist");
    let write = Spec::new(GroupId(9)).mint(Incarnation(1), 1);
    let result = subject.store().commit(&[write]);
    subject.refused("it", result);
    subject.reopen();
}

/// What a truncation removes is gone, whether it is in the middle of a batch, between two, or right above the base, and
/// whether what takes its place is shorter or longer: for readers at once, and after the store was reopened.
///
/// # Panics
/// If anything of the old tail is left, or of the rest is missing.
pub fn truncates(setup: &impl Setup) {
    for base in [0, 3] {
        for from in base + 1..=13 {
            for then in [None, Some((2, 1)), Some((2, 9))] {
                let mut subject = Subject::new(setup, "a truncation");
                for count in [4, 1, 5, 2] {
                    subject.append(1, count);
                }
                if base > 0 {
                    // As low as can be: the log rests on it, so it is not truncated.
                    subject.take(base, b"base".to_vec());
                    let compaction = subject.compaction(base);
                    subject.commit(&compaction);
                }
                subject.truncate(from, then);
                let (end, last) = (subject.model.last().index.0, subject.loads(base + 1, 99, usize::MAX));
                if last != Some((base + 1..=end).collect()) {
                    subject.fail(format!(
                        "12 entries truncated from {from} on, then {then:?}: there are {last:?}"
                    ));
                }
                if subject.loads(end + 1, 99, usize::MAX) != Some(Vec::new()) {
                    subject.fail(format!("something is found beyond {end}, which was truncated"));
                }
                subject.check();
                subject.append(3, 2);
                subject.reopen();
            }
        }
    }
    let mut subject = Subject::new(setup, "truncations, one after the other");
    for term in 1..30 {
        subject.append(term, 3);
        let from = subject.model.last().index.0 - term % 3;
        subject.truncate(from, (term % 2 == 0).then_some((term, 2)));
    }
    subject.check();
    subject.reopen();
}

/// A log begins later where it is told to, in the middle of a batch as well: what is before is said to be compacted, what
/// comes after is there, with the membership at the base. A snapshot takes the place of any log, shorter or longer.
///
/// # Panics
/// If not.
pub fn begins_later(setup: &impl Setup) {
    for at in 1..=12 {
        let mut subject = Subject::new(setup, "a compaction");
        subject.append(1, 4);
        let mut membership = Spec::new(GROUP);
        membership.entries.push(Entries::membership(Term(1), Index(5), &voters(5)));
        subject.commit(&membership);
        subject.append(2, 5);
        subject.append(2, 2);
        subject.take(12, b"twelve".to_vec());
        let mut compaction = subject.compaction(at);
        if at % 2 == 0 {
            compaction.entries = subject.entries(2, 13, &[9, 0, 300]).entries;
        }
        subject.commit(&compaction);
        for below in [0, 1, at] {
            if subject.loads(below, 12, usize::MAX).is_some() {
                subject.fail(format!("{below} is not said to be compacted, but the log begins after {at}"));
            }
        }
        subject.check();
        subject.append(3, 2);
        subject.reopen();
    }
    for index in [3, 8, 9, 30] {
        let mut subject = Subject::new(setup, "an installation");
        subject.append(1, 4);
        subject.append(1, 5);
        let shot = Subject::shot(4, index, b"from elsewhere".to_vec());
        subject.receive(&shot);
        let mut installation = subject.installation(&shot);
        if index == 8 {
            installation.entries.push(Entries::noop(Term(4), Index(9)));
        }
        subject.commit(&installation);
        if subject.loads(index, 99, usize::MAX).is_some() {
            subject.fail(format!("{index} is not said to be compacted, but a snapshot there was installed"));
        }
        let (last, found) = (subject.model.last().index.0, subject.loads(index + 1, 99, usize::MAX));
        if found != Some((index + 1..=last).collect()) {
            subject.fail(format!("a snapshot at {index} was installed, and there are {found:?}"));
        }
        subject.check();
        subject.append(5, 3);
        subject.reopen();
    }
}

/// A commit holds any number of writes of any groups: each group has its own, whichever numbers they have.
///
/// # Panics
/// If not.
pub fn keeps_groups_apart(setup: &impl Setup) {
    let ids = [0, 1, 1 << 32, (1 << 32) + 1, u64::MAX].map(GroupId);
    let groups: Vec<_> = (1..).zip(ids).map(|(n, id)| (id, voters(n))).collect();
    let mut started = setup.start(&groups);
    let recover = |store: &mut dyn FnMut(GroupId) -> (Incarnation, LogId, HardState)| ids.map(store);
    for round in 1..=4_u64 {
        let store = started.reopen();
        let found = recover(&mut |id| {
            let it = store.recover(id).unwrap_or_else(|error| panic!("group {id}: {error}"));
            let membership = &groups.iter().find(|(group, _)| *group == id).expect("it is one of them").1;
            assert_eq!(it.base_membership, *membership, "group {id} has the membership of another");
            let term = it.terms.last().map_or(Term(0), |start| start.term);
            (it.incarnation, LogId::new(term, it.last), it.hard_state)
        });
        let mut writes = Vec::new();
        for (n, (id, (incarnation, last, hard_state))) in (1..).zip(ids.iter().zip(found)) {
            // Group n gets n entries in each round, in term n times the round.
            assert_eq!(last.index, Index(n * (round - 1)), "group {id} has the entries of another");
            assert_eq!(hard_state.term, Term(n * (round - 1)), "group {id} has the term of another");
            for seq in 1..=n {
                let mut spec = Spec::new(*id);
                let term = Term(n * round);
                spec.hard_state = Some(HardState { term, vote: Some(NodeId(n)) });
                spec.entries.push(Entries::noop(term, Index(last.index.0 + seq)));
                writes.push(spec.mint(incarnation, seq));
            }
        }
        // Not one group after the other, as long as each has its order.
        writes.sort_by_key(quorate_core::Write::seq);
        started.store().commit(&writes).unwrap_or_else(|error| panic!("a commit of five groups: {error}"));
    }
}

/// Any size is taken: empty payloads, one of 1 MiB, thousands of entries in a batch, hundreds of batches in a write, and the
/// largest numbers that there are.
///
/// # Panics
/// If not.
pub fn takes_any_size(setup: &impl Setup) {
    let mut subject = Subject::new(setup, "sizes");
    let mut spec = subject.entries(1, 1, &[0, 0, 1 << 20, 0, 1]);
    subject.commit(&spec);
    spec = subject.entries(2, 6, &vec![3; 6_000]);
    subject.commit(&spec);
    spec = subject.entries(3, 6_006, &[0]);
    for n in 1..300 {
        spec.entries.extend(subject.entries(3, 6_006 + n, &[n as usize % 50]).entries);
    }
    subject.commit(&spec);
    subject.commit(&Spec::new(GROUP));
    let nothing = subject.store().commit(&[]);
    subject.good("a commit of nothing", nothing);
    subject.check();
    subject.reopen();

    let mut subject = Subject::new(setup, "the largest numbers");
    let (term, index) = (Term::LIMIT.0 - 1, Index::LIMIT.0 - 100);
    let shot = Subject::shot(term, index, vec![1; 10]);
    subject.receive(&shot);
    let mut spec = subject.installation(&shot);
    spec.hard_state = Some(HardState { term: Term(term), vote: Some(NodeId(u64::MAX)) });
    spec.entries = subject.entries(term, index + 1, &[5; 98]).entries;
    subject.commit(&spec);
    subject.check();
    subject.truncate(index + 50, Some((term, 3)));
    subject.reopen();
}

/// [`Store::settle`](quorate_core::Store::settle) may be called at any time, and changes nothing.
///
/// # Panics
/// If not.
pub fn settles(setup: &impl Setup) {
    let mut subject = Subject::new(setup, "settling");
    for term in 1..6 {
        for _ in 0..term % 3 {
            let settled = subject.store().settle();
            subject.good("settling", settled);
        }
        subject.append(term, 2);
    }
    let settled = subject.store().settle();
    subject.good("settling", settled);
    subject.check();
    subject.reopen_unrecovered();
    let settled = subject.store().settle();
    subject.good("settling before a recovery", settled);
    subject.check();
}
