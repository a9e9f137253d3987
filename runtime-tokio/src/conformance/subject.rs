//! A store with one group to look at, and what that should hold.

use std::sync::Arc;

use quorate_core::{
    GroupId, HardState, Incarnation, Index, Load, LoadId, Loaded, LogId, Membership, Rebase, Run, Snapshot,
    Term,
};

use super::{
    Setup, Started,
    erased::{AnySnapshots, AnyStore, AnyWriter, Trouble},
    model::{Model, Shot, Spec, observe, voters},
};

pub(super) const GROUP: GroupId = GroupId(0);

pub(super) struct Subject<'a> {
    /// What is said when it fails.
    what: &'static str,
    started: Started<'a>,
    pub(super) model: Model,
    pub(super) incarnation: Incarnation,
    /// The number of the next write.
    pub(super) next: u64,
}

impl<'a> Subject<'a> {
    /// A new store with one group, recovered.
    pub(super) fn new(setup: &'a (impl Setup + ?Sized), what: &'static str) -> Self {
        Self::with_groups(setup, what, &[(GROUP, voters(3))])
    }

    pub(super) fn with_groups(
        setup: &'a (impl Setup + ?Sized),
        what: &'static str,
        groups: &[(GroupId, Membership)],
    ) -> Self {
        let started = setup.start(groups);
        let model = Model::new(groups[0].1.clone());
        let mut subject = Self { what, started, model, incarnation: Incarnation(0), next: 1 };
        subject.check();
        subject
    }

    pub(super) fn store(&mut self) -> &mut (dyn AnyStore<'a> + 'a) {
        self.started.store()
    }

    pub(super) fn snapshots(&mut self) -> Box<dyn AnySnapshots<'a> + 'a> {
        self.started.store().snapshots()
    }

    /// Says what is wrong.
    pub(super) fn fail(&self, why: impl std::fmt::Display) -> ! {
        panic!("{}: {why}", self.what)
    }

    #[track_caller]
    pub(super) fn good<T>(&self, doing: &str, result: Result<T, Trouble>) -> T {
        result.unwrap_or_else(|error| self.fail(format!("{doing} fails: {error}")))
    }

    #[allow(clippy::needless_pass_by_value, reason = "a result is handed over where it is made")]
    pub(super) fn refused<T>(&self, doing: &str, result: Result<T, Trouble>) {
        if result.is_ok() {
            self.fail(format!("{doing} is not refused"));
        }
    }

    /// Tries a write, which is not made here.
    pub(super) fn try_commit(&mut self, spec: &Spec) -> Result<(), Trouble> {
        let write = spec.mint(self.incarnation, self.next);
        let result = self.store().commit(&[write]);
        self.next += u64::from(result.is_ok());
        result
    }

    pub(super) fn commit(&mut self, spec: &Spec) {
        let result = self.try_commit(spec);
        self.good(&format!("the commit [{spec}]"), result);
        self.model.apply(spec);
    }

    /// A write of entries in this term, and with it the term, if it is a new one.
    pub(super) fn entries(&self, term: u64, first: u64, sizes: &[usize]) -> Spec {
        let mut spec = Spec::new(GROUP);
        if Term(term) > self.model.hard_state.term {
            spec.hard_state = Some(HardState { term: Term(term), vote: None });
        }
        let command =
            |(n, size): (usize, &usize)| format!("{first}+{n}@{term};").bytes().cycle().take(*size).collect();
        let commands: Vec<Vec<u8>> = sizes.iter().enumerate().map(command).collect();
        spec.entries.extend(Run::commands(Term(term), Index(first), &commands));
        spec
    }

    /// Appends a batch of so many small entries.
    pub(super) fn append(&mut self, term: u64, count: usize) {
        let spec = self.entries(term, self.model.last().index.0 + 1, &vec![20; count]);
        self.commit(&spec);
    }

    pub(super) fn truncate(&mut self, from: u64, then: Option<(u64, usize)>) {
        let mut spec = Spec::new(GROUP);
        if let Some((term, count)) = then {
            spec = self.entries(term, from, &vec![20; count]);
        }
        spec.truncate = Some(Index(from));
        self.commit(&spec);
    }

    /// What there is to be said of the entry there.
    pub(super) fn snapshot_at(&self, index: u64) -> Snapshot {
        let last = self.model.id_at(Index(index)).expect("it is in the log");
        Snapshot { last, membership: self.model.membership_at(Index(index)) }
    }

    pub(super) fn compaction(&self, index: u64) -> Spec {
        let mut spec = Spec::new(GROUP);
        spec.rebase = Some(Rebase::Compact(self.snapshot_at(index)));
        spec
    }

    pub(super) fn installation(&self, shot: &Shot) -> Spec {
        let mut spec = Spec::new(GROUP);
        let term = shot.last().term;
        if term > self.model.hard_state.term {
            spec.hard_state = Some(HardState { term, vote: None });
        }
        spec.rebase = Some(Rebase::Install(shot.info.snapshot.clone()));
        spec
    }

    /// A snapshot of an entry that may not be here.
    pub(super) fn shot(term: u64, index: u64, bytes: Vec<u8>) -> Arc<Shot> {
        let last = LogId::new(Term(term), Index(index));
        Shot::new(Snapshot { last, membership: voters(4) }, bytes)
    }

    /// Takes a snapshot of the log up to there, and publishes it.
    pub(super) fn take(&mut self, index: u64, bytes: Vec<u8>) -> Arc<Shot> {
        let shot = Shot::new(self.snapshot_at(index), bytes);
        let writer = self.snapshots().take(GROUP, &shot.info.snapshot);
        let writer = self.good(&format!("taking a snapshot at {}", shot.last()), writer);
        self.finish(writer, &shot);
        shot
    }

    /// Receives a snapshot, and publishes it.
    pub(super) fn receive(&mut self, shot: &Arc<Shot>) {
        let writer = self.snapshots().receive(GROUP, &shot.info);
        let writer = self.good(&format!("receiving a snapshot at {}", shot.last()), writer);
        self.finish(writer, shot);
    }

    /// Writes what is left, and publishes.
    pub(super) fn finish(&mut self, mut writer: Box<dyn AnyWriter + 'a>, shot: &Arc<Shot>) {
        let rest = shot.bytes.get(writer.staged() as usize..).unwrap_or_default();
        self.good("staging a snapshot", writer.write(rest));
        let info = self.good(&format!("publishing a snapshot at {}", shot.last()), writer.publish());
        if info != shot.info {
            self.fail(format!("a snapshot is published as {info:?}, but it is {:?}", shot.info));
        }
        self.model.publish(shot.clone());
    }

    pub(super) fn load(&mut self, first: u64, last: u64, max_bytes: usize) -> Loaded {
        let load = Load { id: LoadId::default(), first: Index(first), last: Index(last), max_bytes };
        let loaded = self.store().reader().load(GROUP, &load);
        self.good(&format!("{load:?}"), loaded)
    }

    /// The indexes that a load gives; `None` if it says that they are compacted.
    pub(super) fn loads(&mut self, first: u64, last: u64, max_bytes: usize) -> Option<Vec<u64>> {
        match self.load(first, last, max_bytes) {
            Loaded::Entries(runs) => {
                Some(runs.iter().flat_map(|run| run.iter().map(|entry| entry.id.index.0)).collect())
            }
            Loaded::Compacted => None,
        }
    }

    /// Recovers the group, and compares all of it.
    pub(super) fn check(&mut self) {
        let found = observe(self.started.store(), GROUP);
        let found = self.good("recovery", found);
        if let Err(why) = self.model.check(&found) {
            self.fail(why);
        }
        let incarnation = found.recovered.incarnation;
        if incarnation <= self.incarnation {
            self.fail(format!(
                "incarnation {incarnation} is issued, but the group has had {}",
                self.incarnation
            ));
        }
        (self.incarnation, self.next) = (incarnation, 1);
    }

    /// Closes and opens the store, and compares all of it.
    pub(super) fn reopen(&mut self) {
        self.started.reopen();
        self.check();
    }

    /// Closes and opens the store, and recovers nothing.
    pub(super) fn reopen_unrecovered(&mut self) {
        self.started.reopen();
    }
}
