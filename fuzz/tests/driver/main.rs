//! The real driver, not a copy of it, in virtual time: nodes of `quorate-runtime-tokio` on a runtime whose clock is paused, with
//! stores in memory and a network of our own. All chance comes from a seed: messages are delayed, lost, repeated and
//! reordered, links are cut one way and both ways, nodes crash at any moment and come back with what was durable, disks and
//! state machines are slow now and then. Clients write and read through any node; what they saw must be linearizable, what was
//! acknowledged must be there, all nodes must come to the same, and the recordings of all nodes, replayed in the simulator,
//! must keep its invariants.

mod client;
mod cluster;
mod disk;
mod network;

use std::{collections::BTreeMap, time::Duration};

use client::{History, check};
use cluster::Cluster;
use quorate_core::NodeId;
use tokio::time::{Instant, sleep, timeout};

/// A small generator of our own: a seed means the same on every platform and in every release.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut dice =
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xd1b5_4a32_d192_ed03));
        dice.next();
        dice
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn micros(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound))
    }
}

/// What one run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    history: History,
    /// What all nodes have in the end.
    words: Vec<String>,
    crashes: u64,
    /// Messages taken in by all nodes that are left.
    messages: u64,
    took: Duration,
}

const FAULTS: Duration = Duration::from_secs(30);

/// One run, from beginning to end.
fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async move {
        let begin = Instant::now();
        let mut dice = Dice::new(seed, 0);
        let nodes = 3 + 2 * dice.below(2);
        let mut cluster = Cluster::start(seed, nodes).await;
        let clients: Vec<_> = (0..4).map(|n| client::start(&cluster, Dice::new(seed, 100 + n), n)).collect();
        let mut crashes = 0;
        while begin.elapsed() < FAULTS {
            sleep(Duration::from_millis(200) + dice.micros(2_000_000)).await;
            crashes += trouble(&mut cluster, &mut dice).await;
        }
        cluster.network.heal();
        cluster.restart_all().await;
        sleep(Duration::from_secs(10)).await;
        cluster.clients_stop();
        let mut history = History::default();
        for client in clients {
            history.extend(timeout(Duration::from_secs(60), client).await.expect("clients end").unwrap());
        }
        // Whoever leads now still can.
        let last = timeout(Duration::from_secs(60), cluster.write_until_done("the end")).await;
        last.unwrap_or_else(|_| panic!("seed {seed}: a healed cluster takes no command"));
        let words = timeout(Duration::from_secs(60), cluster.converged()).await;
        let words = words.unwrap_or_else(|_| panic!("seed {seed}: a healed cluster doesn't converge"));
        let messages = cluster.messages().await;
        let took = begin.elapsed();
        let (files, _folder) = cluster.stop().await;
        if let Err(error) = quorate_sim::flight::replay(&files) {
            panic!("seed {seed}: the recordings break an invariant: {error}");
        }
        Outcome { history, words, crashes, messages, took }
    })
}

/// One thing goes wrong, or right again.
async fn trouble(cluster: &mut Cluster, dice: &mut Dice) -> u64 {
    let pick = |dice: &mut Dice, cluster: &Cluster| NodeId(1 + dice.below(cluster.size()));
    match dice.below(10) {
        0 | 1 => {
            let (from, to) = (pick(dice, cluster), pick(dice, cluster));
            cluster.network.cut(from, to);
        }
        2 => {
            let (a, b) = (pick(dice, cluster), pick(dice, cluster));
            cluster.network.cut(a, b);
            cluster.network.cut(b, a);
        }
        3 => cluster.network.isolate(pick(dice, cluster), cluster.size()),
        4 | 5 => cluster.network.heal(),
        6 => cluster.network.weather(dice),
        7 => cluster.slow(pick(dice, cluster), dice),
        _ => {
            let id = pick(dice, cluster);
            cluster.crash(id);
            sleep(dice.micros(1_500_000)).await;
            cluster.restart(id).await;
            return 1;
        }
    }
    0
}

#[test]
fn what_clients_see_is_linearizable_whatever_the_seed_brings() {
    let (mut done, mut unknown, mut crashes) = (0, 0, 0);
    for seed in 0..seeds() {
        let outcome = run(seed);
        check(&outcome.history, &outcome.words).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let counts = outcome.history.counts();
        done += counts.0;
        unknown += counts.1;
        crashes += outcome.crashes;
    }
    // The runs were of use: much was done, some of it with an unknown outcome, and nodes did crash.
    assert!(
        done > 200 * seeds() && unknown > 0 && crashes > seeds(),
        "{done} done, {unknown} unknown, {crashes}"
    );
}

#[test]
fn a_seed_is_one_run() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed), run(seed));
        assert!(first == second, "seed {seed} went two ways:\n{first:?}\n{second:?}");
    }
}

/// A checker that finds nothing is worth nothing.
#[test]
fn the_checker_sees_what_is_wrong() {
    let Outcome { history, words, .. } = run(4);
    assert_eq!(check(&history, &words), Ok(()));
    let mut wrong = BTreeMap::new();
    wrong.insert("an acknowledged write is missing", (history.clone(), history.without_a_word(&words)));
    wrong.insert("a write is there twice", (history.clone(), history.with_a_word_twice(&words)));
    wrong.insert("a read goes back in time", (history.with_a_stale_read(), words.clone()));
    wrong.insert("a read saw what never was", (history.with_an_invented_read(), words.clone()));
    for (what, (history, words)) in wrong {
        assert!(check(&history, &words).is_err(), "{what}, and nobody noticed");
    }
}

/// `QUORATE_SEEDS=1000` for a long night.
fn seeds() -> u64 {
    std::env::var("QUORATE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(30)
}
