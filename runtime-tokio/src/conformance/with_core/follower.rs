//! A follower whose leader is the test.

use std::collections::BTreeMap;

use quorate_core::{
    Action, Body, Config, Index, Input, Instant, Load, LoadId, Loaded, LogId, Membership, Message, NodeId,
    Raft, Run, Snapshot, Term, Write,
};

use crate::conformance::{
    Rng, Setup, Started,
    model::{Shot, voters},
    plan::Lane,
    subject::GROUP,
};

/// A core as a follower over the store: it is sent entries, other entries in their place, and snapshots; it takes snapshots of
/// its own and compacts; it starts again. What it finds then is what it had.
///
/// # Panics
/// If not.
pub fn follows_a_leader(setup: &impl Setup) {
    let (mut compactions, mut installs) = (0, 0);
    for seed in 0..12 {
        let mut follower = Follower::new(setup, seed);
        for _ in 0..250 {
            match follower.rng.below(12) {
                0..=7 => follower.append(),
                8 | 9 => follower.compact(),
                10 if follower.rng.chance(30) => follower.install(),
                _ => follower.restart(),
            }
        }
        follower.restart();
        compactions += follower.compactions - follower.installs;
        installs += follower.installs;
    }
    assert!(compactions > 60 && installs > 25, "{compactions} compactions, {installs} installs: too few");
}

struct Follower<'a> {
    started: Started<'a>,
    raft: Raft,
    rng: Rng,
    /// Every payload it should hold, and those that a snapshot has replaced.
    payloads: BTreeMap<u64, Vec<u8>>,
    /// What is in force since where, from the base on.
    memberships: BTreeMap<u64, Membership>,
    /// The newest snapshot that is published.
    newest: Option<Snapshot>,
    compactions: u64,
    installs: u64,
}

fn config() -> Config {
    let mut config = Config::new(NodeId(2));
    config.max_cached_bytes = 1;
    config
}

impl<'a> Follower<'a> {
    fn new(setup: &'a impl Setup, seed: u64) -> Self {
        let mut started = setup.start(&[(GROUP, voters(3))]);
        let recovered = started.store().recover(GROUP).unwrap_or_else(|error| panic!("a new group: {error}"));
        let raft = Raft::new(config(), recovered, Instant(0)).expect("a new group can be started");
        Self {
            started,
            raft,
            rng: Rng::new(seed),
            payloads: BTreeMap::new(),
            memberships: BTreeMap::from([(0, voters(3))]),
            newest: None,
            compactions: 0,
            installs: 0,
        }
    }

    fn step(&mut self, input: Input) {
        self.raft.step(Instant(0), input).expect("a leader's word");
        loop {
            let actions: Vec<Action> = self.raft.drain().collect();
            if actions.is_empty() {
                return;
            }
            let mut writes = Vec::new();
            let mut answers = Vec::new();
            for action in actions {
                match action {
                    Action::Write(write) => {
                        self.compactions += u64::from(write.rebase.is_some());
                        writes.push(write);
                    }
                    Action::Apply(apply) => answers.push(Input::Applied { up_to: apply.last() }),
                    Action::Restore(snapshot) => {
                        answers.push(Input::Applied { up_to: snapshot.last.index });
                        self.installs += 1;
                    }
                    Action::Load(load) => {
                        let result = self.started.store().reader().load(GROUP, &load);
                        let result = result.unwrap_or_else(|error| panic!("{load:?}: {error}"));
                        answers.push(Input::Loaded { id: load.id, result });
                    }
                    Action::Send { .. }
                    | Action::SendSnapshot(_)
                    | Action::Resolve { .. }
                    | Action::Event(_) => {}
                }
            }
            if !writes.is_empty() {
                let committed = self.started.store().commit(&writes);
                committed
                    .unwrap_or_else(|error| panic!("what the core writes is refused: {error}: {writes:?}"));
                let receipts = writes.into_iter().map(Write::into_receipt);
                let merged = receipts.reduce(|all, next| all.merge(next).expect("they follow one another"));
                answers.insert(0, Input::Persisted(merged.expect("there is one at least")));
            }
            for answer in answers {
                self.raft.step(Instant(0), answer).expect("an answer that it waits for");
            }
        }
    }

    /// The leader of `term` says this.
    fn hear(&mut self, term: u64, body: Body) {
        let from = NodeId(if term.is_multiple_of(2) { 1 } else { 3 });
        self.step(Input::Receive { from, message: Message { term: Term(term), body } });
    }

    fn append(&mut self) {
        let (commit, last) = (self.raft.commit().0, self.raft.last().index.0);
        // Sometimes another leader replaces what is not committed.
        let other = self.rng.chance(25);
        let term = self.raft.term().0.max(1) + u64::from(other);
        let prev = if other { commit + self.rng.below(last - commit + 1) } else { last };
        let prev = LogId::new(self.raft.term_at(Index(prev)).expect("it is in the log"), Index(prev));
        let first = prev.index.0 + 1;
        drop(self.payloads.split_off(&first));
        drop(self.memberships.split_off(&first));
        let run = if self.rng.chance(16) {
            let membership = voters(3 + self.rng.below(3));
            self.payloads.insert(first, membership.encode().to_vec());
            self.memberships.insert(first, membership.clone());
            Run::membership(Term(term), Index(first), &membership)
        } else {
            let commands: Vec<Vec<u8>> =
                (0..=self.rng.below(6)).map(|n| format!("{term}.{}", first + n).into_bytes()).collect();
            self.payloads.extend((first..).zip(commands.iter().cloned()));
            Run::commands(Term(term), Index(first), &commands).expect("there is one at least")
        };
        let commit = commit + self.rng.below(run.last().0 - commit + 1);
        self.hear(term, Body::Append { prev, commit: Index(commit), entries: [run].into_iter().collect() });
    }

    /// A snapshot is published, and then the core hears of it.
    fn publish(&mut self, snapshot: &Snapshot, lane: Lane) {
        let shot = Shot::new(snapshot.clone(), self.rng.bytes(100));
        let snapshots = self.started.store().snapshots();
        let writer = match lane {
            Lane::Take => snapshots.take(GROUP, snapshot),
            Lane::Receive => snapshots.receive(GROUP, &shot.info),
        };
        let published = writer.and_then(|mut writer| {
            writer.write(&shot.bytes)?;
            writer.publish()
        });
        published.unwrap_or_else(|error| panic!("a snapshot at {}: {error}", snapshot.last));
        self.newest = Some(snapshot.clone());
    }

    fn membership_at(&self, index: u64) -> Membership {
        let (_, membership) = self.memberships.range(..=index).next_back().expect("one at the base at least");
        membership.clone()
    }

    fn compact(&mut self) {
        let index = self.raft.status().applied;
        let newest = self.newest.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        if index > self.raft.status().base.index && index > newest {
            let last = LogId::new(self.raft.term_at(index).expect("it is in the log"), index);
            self.publish(&Snapshot { last, membership: self.membership_at(index.0) }, Lane::Take);
            let keep = self.rng.below(9);
            self.step(Input::Compact { snapshot: index, keep });
        }
    }

    fn install(&mut self) {
        let term = self.raft.term().0.max(1) + 1;
        let index = self.raft.commit().0 + 1 + self.rng.below(12);
        let membership = voters(3 + self.rng.below(3));
        let snapshot =
            Snapshot { last: LogId::new(Term(term), Index(index)), membership: membership.clone() };
        self.publish(&snapshot, Lane::Receive);
        if self.rng.chance(20) {
            // The node is killed before its core hears of it.
            self.restart();
        }
        self.payloads.clear();
        self.memberships = BTreeMap::from([(index, membership)]);
        let last = snapshot.last;
        self.hear(term, Body::InstallSnapshot { snapshot: Box::new(snapshot) });
        assert_eq!(self.raft.status().base, last, "the snapshot is installed");
    }

    fn restart(&mut self) {
        let before = self.raft.status();
        let store = if self.rng.chance(50) { self.started.reopen() } else { self.started.store() };
        let recovered = store.recover(GROUP).unwrap_or_else(|error| panic!("recovery: {error}"));
        assert_eq!(
            (recovered.base, recovered.last),
            (before.base, before.last.index),
            "where the log begins and ends"
        );
        let hard_state = recovered.hard_state;
        assert_eq!((hard_state.term, hard_state.vote), (before.term, before.vote), "term and vote");
        let fits = |snapshot: &&Snapshot| {
            let id = snapshot.last;
            self.raft.term_at(id.index) == Some(id.term)
        };
        let newest = self.newest.as_ref().filter(fits);
        if newest.is_some() || before.base == LogId::ZERO {
            assert_eq!(recovered.snapshot.as_ref(), newest, "the newest snapshot");
        }
        let applied = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        assert_eq!(recovered.applied, applied, "what the snapshot holds is applied");
        let (base, at_base) = (before.base.index.0, self.membership_at(before.base.index.0));
        assert_eq!(recovered.base_membership, at_base, "the membership at the base");
        let above = self.memberships.range(base + 1..).map(|(at, it)| (Index(*at), it.clone()));
        assert_eq!(recovered.memberships, above.collect::<Vec<_>>(), "the memberships");

        let again = Raft::new(config(), recovered, Instant(0)).expect("what a store recovers can be started");
        for index in base..=before.last.index.0 + 1 {
            let (found, had) = (again.term_at(Index(index)), self.raft.term_at(Index(index)));
            assert_eq!(found, had, "the term at index {index}");
        }
        self.raft = again;
        self.read();
        // What was applied before is applied again, from the snapshot on.
        self.hear(
            before.term.0.max(1),
            Body::Append { prev: before.last, commit: before.commit, entries: quorate_core::Few::new() },
        );
    }

    /// All that is there is what it should be, and nothing is there below the base.
    fn read(&mut self) {
        let status = self.raft.status();
        let reader = self.started.store().reader();
        let load = |first: u64| {
            let load =
                Load { id: LoadId::default(), first: Index(first), last: status.last.index, max_bytes: 40 };
            reader.load(GROUP, &load).unwrap_or_else(|error| panic!("{load:?}: {error}"))
        };
        assert_eq!(load(status.base.index.0), Loaded::Compacted);
        let mut next = status.base.index.0 + 1;
        while next <= status.last.index.0 {
            let Loaded::Entries(runs) = load(next) else { panic!("{next} is compacted") };
            assert!(!runs.is_empty(), "nothing is found at {next}");
            for entry in runs.iter().flat_map(Run::iter) {
                let id = LogId::new(self.raft.term_at(Index(next)).expect("in the log"), Index(next));
                assert_eq!(entry.id, id);
                assert_eq!(entry.payload, self.payloads[&next], "index {next}");
                next += 1;
            }
        }
    }
}
