//! No input makes the core panic, and a refused one changes nothing (contract, point 9).

#[path = "common/chaos.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzer")]
mod chaos;

use std::sync::Mutex;

use proptest::prelude::*;

/// What has been met in all runs together.
static MET: Mutex<chaos::Met> = Mutex::new(chaos::Met::new());

#[test]
fn no_input_panics_and_a_refused_one_changes_nothing() {
    let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in prop::collection::vec(any::<u8>(), 0..3000))| {
        let met = chaos::run(&bytes, &mut ());
        let mut all = MET.lock().unwrap();
        for (what, count) in met {
            *all.entry(what).or_default() += count;
        }
    });
    // The choices lead everywhere: every kind of input is both taken and refused where it can be.
    let met = MET.lock().unwrap();
    for what in EXPECTED {
        assert!(met.contains_key(*what), "never met: {what}\n{met:#?}");
    }
}

const EXPECTED: &[&str] = &[
    "abort transfer taken",
    "action Apply",
    "action Event",
    "action Load",
    "action Resolve",
    "action Restore",
    "action Send",
    "action SendSnapshot",
    "action Write",
    "append Malformed",
    "append Unexpected",
    "append overloaded: unpersisted",
    "append taken",
    "appended Unexpected",
    "appended taken",
    "applied BadApplied",
    "applied taken",
    "campaign Leased",
    "campaign NotVoter",
    "campaign taken",
    "change Change",
    "change NotLeader",
    "change Transferring",
    "change taken",
    "commit Unexpected",
    "commit taken",
    "compact BadSnapshot",
    "compact taken",
    "conflict Unexpected",
    "conflict taken",
    "forget leader Leased",
    "forget leader taken",
    "heartbeat Unexpected",
    "heartbeat reply Unexpected",
    "heartbeat reply taken",
    "heartbeat taken",
    "install snapshot Malformed",
    "install snapshot Unexpected",
    "install snapshot taken",
    "loaded BadLoad",
    "loaded StaleLoad",
    "loaded taken",
    "persisted StaleReceipt",
    "persisted taken",
    "pre-vote reply taken",
    "pre-vote taken",
    "propose Empty",
    "propose NotLeader",
    "propose TooBig",
    "propose Transferring",
    "propose overloaded: uncommitted",
    "propose overloaded: unpersisted",
    "propose taken",
    "read NoLeader",
    "read index NotMember",
    "read index reply taken",
    "read index taken",
    "read overloaded: reads",
    "read taken",
    "refused to start",
    "snapshot sent StaleSend",
    "snapshot sent taken",
    "storage failed taken",
    "tick Stopped",
    "tick overloaded: actions",
    "tick taken",
    "timeout now NotMember",
    "timeout now Unexpected",
    "timeout now taken",
    "transfer NoSuchVoter",
    "transfer NotLeader",
    "transfer Transferring",
    "transfer taken",
    "unreachable taken",
    "reachable taken",
    "step down taken",
    "vote Malformed",
    "vote reply taken",
    "vote taken",
];
