//! Contract, points 2 and 3: the recorded inputs of any run give the same actions again, bit for bit.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;
use quorate_core::{Action, Config, Input, Instant, Raft, Recovered};
use quorate_fuzz::chaos::{self, Observer};

/// A run, as text: how it started, what happened, and what was to be done.
#[derive(Default)]
struct Recorder {
    start: Option<String>,
    /// Each with what was polled after it; `None` where nothing was polled.
    inputs: Vec<(String, Option<usize>)>,
    actions: Vec<String>,
}

impl Observer for Recorder {
    fn start(&mut self, config: &Config, recovered: &Recovered, now: Instant) {
        self.start = Some(serde_json::to_string(&(config, recovered, now)).unwrap());
    }

    fn input(&mut self, now: Instant, input: &Input) {
        self.inputs.push((serde_json::to_string(&(now, input)).unwrap(), None));
    }

    fn action(&mut self, action: &Action) {
        self.actions.push(serde_json::to_string(action).unwrap());
    }

    fn drained(&mut self) {
        self.inputs.last_mut().unwrap().1 = Some(self.actions.len());
    }
}

/// Records the run that these choices make, and replays it from what was recorded.
fn replays(bytes: &[u8]) {
    let mut recorded = Recorder::default();
    chaos::run(bytes, &mut recorded);
    let Some(start) = &recorded.start else { return };
    let (config, recovered, now): (Config, Recovered, Instant) = serde_json::from_str(start).unwrap();
    let mut raft = Raft::new(config, recovered, now).unwrap();
    let mut actions = Vec::new();
    for (line, polled) in &recorded.inputs {
        let (now, input): (Instant, Input) = serde_json::from_str(line).unwrap();
        let _refused = raft.step(now, input);
        // When the queue is drained matters, for its bound does.
        if let Some(polled) = *polled {
            actions.extend(raft.drain().map(|action| serde_json::to_string(&action).unwrap()));
            assert_eq!(actions.len(), polled);
        }
    }
    assert_eq!(actions, recorded.actions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_recorded_run_replays_to_the_same_actions(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        replays(&bytes);
    }
}

/// The corpus has been chosen to meet everything: every kind of input and action is recorded and replayed at least once.
#[test]
fn so_do_the_runs_of_the_corpus() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/core");
    let mut met = BTreeSet::new();
    for file in fs::read_dir(dir).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        met.extend(quorate_fuzz::features(&bytes));
        replays(&bytes);
    }
    let missing: Vec<_> = EXPECTED.iter().filter(|what| !met.contains(**what)).collect();
    assert!(
        missing.is_empty(),
        "the corpus never meets {missing:?}: make it anew, as examples/corpus.rs says"
    );
}

const EXPECTED: &[&str] = &[
    "abort transfer taken",
    "action Apply",
    "action Load",
    "action Restore",
    "action SendSnapshot",
    "append taken",
    "appended taken",
    "applied taken",
    "campaign taken",
    "change taken",
    "compact taken",
    "event Compacted",
    "event Installed",
    "event Leader",
    "event Membership",
    "event Peer",
    "event Role",
    "event Stopped",
    "event Transfer",
    "event Truncated",
    "forget leader taken",
    "install snapshot taken",
    "loaded taken",
    "outcome Changed",
    "outcome Read",
    "outcome Refused",
    "outcome Transferred",
    "outcome Unknown",
    "persisted taken",
    "propose taken",
    "read taken",
    "rebase Compact",
    "rebase Install",
    "send TimeoutNow",
    "snapshot sent taken",
    "storage failed taken",
    "timeout now taken",
    "transfer taken",
    "unreachable taken",
    "reachable taken",
    "step down taken",
    "event Asleep",
    "event Awake",
];

#[test]
fn a_recorded_batch_is_looked_through_before_it_is_believed() {
    let parse = |block: &[u8]| {
        serde_json::from_value::<quorate_core::Batch>(serde_json::json!(block)).map(|batch| batch.count())
    };
    assert_eq!(parse(&[1, 1, 0, 0, 0, b'x', 1, 0, 0, 0, 0]).unwrap(), 2);
    assert_eq!(parse(&[]).unwrap(), 0);
    assert!(parse(&[1, 255, 0, 0, 0, 1]).is_err(), "shorter than it says");
    assert!(parse(&[0, 0, 0, 0, 0]).is_err(), "no command");
}
