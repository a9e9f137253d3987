//! Runs against the specification, and their export.

use std::collections::BTreeSet;

use quorate_sim::{
    Options, Profile,
    spec::{EXPORT_VERSION, cli::hold_seeds, export_steps, hold},
};
use serde_json::Value;

/// What the command line does for 200 seeds. Every action of the specification is taken somewhere.
#[test]
fn seeds_of_all_profiles_are_allowed() {
    let mut taken = BTreeSet::new();
    for (profile, seeds) in [
        (Profile::Everything, 0..40),
        (Profile::Membership, 0..20),
        (Profile::Clock, 0..3),
        (Profile::Disk, 0..3),
        (Profile::Network, 0..3),
        (Profile::Calm, 0..1),
    ] {
        let held = hold_seeds(seeds, &Options { profile, ..Options::new(0) }, 2, |_| {});
        if let Some(violation) = held.violation {
            panic!("{violation}");
        }
        taken.extend(held.actions.into_keys());
    }
    assert_eq!(taken.len(), 35, "{taken:?}");
}

/// The quick way shows the specification one node and one message, and asks for one action. Shown everything, and asked for any, it
/// says the same.
#[test]
fn the_whole_of_next_allows_the_same() {
    for seed in [3, 4, 7] {
        if let Err(violation) = hold(&Options::new(seed), 600, true) {
            panic!("{violation}");
        }
    }
}

fn export(options: &Options, most: u64) -> Vec<Value> {
    let mut out = Vec::new();
    export_steps(options, most, &mut out).unwrap().unwrap();
    let text = String::from_utf8(out).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_export_says_what_it_is_and_every_line_is_a_step() {
    let lines = export(&Options::new(7), 800);
    let (header, steps) = lines.split_first().unwrap();
    assert_eq!(header["format"], "quorate-steps");
    assert_eq!(header["version"], EXPORT_VERSION);
    assert_eq!(steps.len(), 800);
    // Nobody is anything yet.
    assert_eq!(steps[0]["action"], "Restart");
    for node in steps[0]["nodes"].as_array().unwrap() {
        assert_eq!(
            (&node["currentTerm"], &node["role"], &node["log"]),
            (&0.into(), &"follower".into(), &Value::Array(vec![]))
        );
    }
    let names: BTreeSet<&str> = steps.iter().filter_map(|step| step["raft"].as_str()).collect();
    for name in ["Restart", "Timeout", "RequestVote", "BecomeLeader", "ClientRequest", "AppendEntries"] {
        assert!(names.contains(name), "no {name} in {names:?}");
    }
    for (at, pair) in steps.windows(2).enumerate() {
        assert_eq!(pair[0]["step"], at);
        check_messages(&pair[0], &pair[1]);
    }
}

/// What is in flight changes by the one message that a line is about, or not at all.
fn check_messages(before: &Value, after: &Value) {
    let flying = |line: &Value| {
        let messages = line["messages"].as_array().unwrap().iter();
        messages.map(|message| (message["id"].as_u64(), message["count"].as_u64())).collect::<BTreeSet<_>>()
    };
    let (before, now) = (flying(before), flying(after));
    let changed: BTreeSet<_> = before.symmetric_difference(&now).map(|(id, _)| *id).collect();
    let action = after["action"].as_str().unwrap();
    if action.starts_with("Send") || ["Receive", "Drop", "Duplicate"].contains(&action) {
        assert_eq!(changed, [after["message"].as_u64()].into(), "{action}");
    } else {
        assert!(changed.is_empty(), "{action} changes {changed:?}");
    }
}

/// A short calm run to its end: all agree.
#[test]
fn the_last_line_agrees_with_the_run() {
    let options =
        Options { profile: Profile::Calm, nodes: Some(1), duration: Some(200_000), ..Options::new(5) };
    let mut out = Vec::new();
    let report = export_steps(&options, u64::MAX, &mut out).unwrap().unwrap();
    let text = String::from_utf8(out).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let report = report.expect("it went to its end");
    assert!(last["at"].as_u64().unwrap() <= report.simulated);
    let nodes = last["nodes"].as_array().unwrap();
    let log = &nodes[0]["log"];
    assert!(
        nodes.iter().all(|node| node["log"] == *log && node["commitIndex"] == log.as_array().unwrap().len())
    );
    let committed = quorate_sim::Count::Commits;
    assert!(report.counts[committed] > 0);
}
