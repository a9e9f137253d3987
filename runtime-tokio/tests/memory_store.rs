//! A core over [`MemoryStore`]: a follower whose leader is the test. It is sent entries, other entries in their place
//! and snapshots, compacts, and starts again: what it finds then is what it had.

use std::collections::BTreeMap;

use quorate_core::{
    Action, Body, Config, GroupId, Index, Input, Instant, Load, LoadId, Loaded, LogId, LogReader, Membership,
    Message, NodeId, Raft, Run, Snapshot, Store, Term, Write,
};
use quorate_runtime_tokio::MemoryStore;

const GROUP: GroupId = GroupId(0);

/// A small PRNG (splitmix64), so that every run is the same.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) % n
    }
}

struct Follower {
    store: MemoryStore,
    raft: Raft,
    rng: Rng,
    /// Every payload it should hold, and those that a snapshot has replaced.
    payloads: BTreeMap<u64, Vec<u8>>,
    /// What is in force since where, from the base on.
    memberships: BTreeMap<u64, Membership>,
    compactions: u64,
    installs: u64,
}

fn voters(n: u64) -> Membership {
    Membership::of_voters((1..=3 + n).map(NodeId))
}

fn config() -> Config {
    let mut config = Config::new(NodeId(2));
    config.max_cached_bytes = 1;
    config
}

impl Follower {
    fn new(seed: u64) -> Self {
        let mut store = MemoryStore::new(voters(0));
        let raft = Raft::new(config(), store.recover(GROUP).unwrap(), Instant(0)).unwrap();
        let memberships = BTreeMap::from([(0, voters(0))]);
        let (rng, payloads) = (Rng(seed), BTreeMap::new());
        Self { store, raft, rng, payloads, memberships, compactions: 0, installs: 0 }
    }

    fn step(&mut self, input: Input) {
        self.raft.step(Instant(0), input).unwrap();
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
                        let result = self.store.reader().load(GROUP, &load).unwrap();
                        answers.push(Input::Loaded { id: load.id, result });
                    }
                    _ => {}
                }
            }
            if !writes.is_empty() {
                self.store.commit(&writes).unwrap();
                let receipts = writes.into_iter().map(Write::into_receipt);
                let merged = receipts.reduce(|all, next| all.merge(next).unwrap()).unwrap();
                answers.insert(0, Input::Persisted(merged));
            }
            for answer in answers {
                self.raft.step(Instant(0), answer).unwrap();
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
        let other = self.rng.below(4) == 0;
        let term = self.raft.term().0.max(1) + u64::from(other);
        let prev = if other { commit + self.rng.below(last - commit + 1) } else { last };
        let prev = LogId::new(self.raft.term_at(Index(prev)).unwrap(), Index(prev));
        let first = prev.index.0 + 1;
        drop(self.payloads.split_off(&first));
        drop(self.memberships.split_off(&first));
        let run = if self.rng.below(6) == 0 {
            let membership = voters(self.rng.below(3));
            self.payloads.insert(first, membership.encode().to_vec());
            self.memberships.insert(first, membership.clone());
            Run::membership(Term(term), Index(first), &membership)
        } else {
            let commands: Vec<Vec<u8>> =
                (0..=self.rng.below(6)).map(|n| format!("{term}.{}", first + n).into_bytes()).collect();
            self.payloads.extend((first..).zip(commands.iter().cloned()));
            Run::commands(Term(term), Index(first), &commands).unwrap()
        };
        let commit = commit + self.rng.below(run.last().0 - commit + 1);
        self.hear(term, Body::Append { prev, commit: Index(commit), entries: [run].into_iter().collect() });
    }

    fn compact(&mut self) {
        let snapshot = self.raft.status().applied;
        if snapshot > self.raft.status().base.index {
            let keep = self.rng.below(9);
            self.step(Input::Compact { snapshot, keep });
        }
    }

    fn install(&mut self) {
        let term = self.raft.term().0.max(1) + 1;
        let index = self.raft.commit().0 + 1 + self.rng.below(12);
        let membership = voters(self.rng.below(3));
        let last = LogId::new(Term(term), Index(index));
        self.payloads.clear();
        self.memberships = BTreeMap::from([(index, membership.clone())]);
        self.hear(term, Body::InstallSnapshot { snapshot: Box::new(Snapshot { last, membership }) });
        assert_eq!(self.raft.status().base, last);
    }

    fn restart(&mut self) {
        let before = self.raft.status();
        let recovered = self.store.recover(GROUP).unwrap();
        assert_eq!((recovered.base, recovered.last), (before.base, before.last.index));
        assert_eq!((recovered.hard_state.term, recovered.hard_state.vote), (before.term, before.vote));
        assert_eq!(recovered.applied, before.base.index);
        let membership = recovered.base_membership.clone();
        let at_base = Snapshot { last: before.base, membership };
        assert_eq!(recovered.snapshot, (before.base != LogId::ZERO).then_some(at_base));
        let (_, at_base) = self.memberships.range(..=before.base.index.0).next_back().unwrap();
        assert_eq!(recovered.base_membership, *at_base);
        let above = self.memberships.range(before.base.index.0 + 1..);
        assert_eq!(recovered.memberships, above.map(|(at, m)| (Index(*at), m.clone())).collect::<Vec<_>>());

        let again = Raft::new(config(), recovered, Instant(0)).unwrap();
        for index in before.base.index.0..=before.last.index.0 + 1 {
            assert_eq!(again.term_at(Index(index)), self.raft.term_at(Index(index)), "index {index}");
        }
        self.raft = again;
        self.read();
    }

    /// All that is there is what it should be, and nothing is there below the base.
    fn read(&self) {
        let status = self.raft.status();
        let reader = self.store.reader();
        let load = |first: u64| {
            let load =
                Load { id: LoadId::default(), first: Index(first), last: status.last.index, max_bytes: 40 };
            reader.load(GROUP, &load).unwrap()
        };
        assert_eq!(load(status.base.index.0), Loaded::Compacted);
        let mut next = status.base.index.0 + 1;
        while next <= status.last.index.0 {
            let Loaded::Entries(runs) = load(next) else { panic!("{next} is compacted") };
            assert!(!runs.is_empty());
            for entry in runs.iter().flat_map(Run::entries) {
                assert_eq!(entry.id, LogId::new(self.raft.term_at(Index(next)).unwrap(), Index(next)));
                assert_eq!(entry.payload, self.payloads[&next], "index {next}");
                next += 1;
            }
        }
    }
}

#[test]
fn what_a_follower_finds_again_is_what_it_had() {
    let (mut compactions, mut installs) = (0, 0);
    for seed in 0..20 {
        let mut follower = Follower::new(seed);
        for _ in 0..300 {
            match follower.rng.below(12) {
                0..=7 => follower.append(),
                8 | 9 => follower.compact(),
                10 if follower.rng.below(3) == 0 => follower.install(),
                _ => follower.restart(),
            }
        }
        follower.restart();
        compactions += follower.compactions - follower.installs;
        installs += follower.installs;
    }
    assert!(compactions > 100 && installs > 50, "{compactions} compactions, {installs} installs");
}
