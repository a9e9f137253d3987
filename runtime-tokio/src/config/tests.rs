//! Settings from files, and which are refused.

use std::{num::NonZeroU64, time::Duration};

use quorate_core::{Config, GroupId, Membership, NodeId};

use super::*;
use crate::{Host, MemoryStore, SnapshotSourcing, StartError};

struct Never;

impl quorate_core::StateMachine for Never {
    type Command = bytes::Bytes;
    type Reply = bytes::Bytes;

    fn apply(&mut self, _: &quorate_core::Entry) -> bytes::Bytes {
        bytes::Bytes::new()
    }
}

fn parse(text: &str) -> NodeConfig {
    toml::from_str(text).unwrap()
}

#[test]
fn an_empty_file_has_the_builders_defaults() {
    let config = parse("");
    assert_eq!(config, NodeConfig::default());
    config.validate().unwrap();
    let (mut applied, core) =
        (Config { lease_reads: true, priority: 3, ..Config::new(NodeId(7)) }, Config::new(NodeId(7)));
    config.apply_to(&mut applied);
    assert_eq!(applied, core);
    let builder = || crate::Node::<Never>::builder(NodeId(1));
    assert_eq!(format!("{:?}", builder()), format!("{:?}", builder().with_config(config)));
    // Half a table has the others' defaults.
    let config = parse("[limits]\nmax_reads = 5\n[snapshots]\nentries = 3");
    assert_eq!(config.limits, LimitsConfig { max_reads: 5, ..LimitsConfig::default() });
    assert_eq!(config.snapshots, SnapshotPolicy { entries: 3, ..SnapshotPolicy::default() });
}

const EVERYTHING: &str = r#"
election_timeout = "1s 500ms"
heartbeat_interval = "150ms"
pre_vote = false
check_quorum = false
lease_reads = true
max_clock_drift = "250us"
priority = 7
quiesce_after = "10m"
request_timeout = "7s"
shutdown_timeout = "0s"
max_pending = 12
disk_stall_timeout = "2s"
state_hash_every = 1000

feed_bytes = "2MiB"

[snapshots]
automatic = false
entries = 1
bytes = "1.5 GiB"
size_percent = 20
min_pause = "2s"
keep_entries = 3
keep_bytes = 4
hold_bytes = "5KiB"
piece_bytes = 6

[snapshot_limits]
take_rate = "unlimited"
send_rate = "10MB"
receive_rate = 1_000_000
sends = 5
receives = 6
chunk_bytes = "64KiB"
sync_bytes = "1MiB"
stall_timeout = "3s"
queue_timeout = "4s"
source = "always"

[limits]
max_append_bytes = "512KiB"
max_inflight_messages = 13
max_inflight_bytes = 1_000_001
max_uncommitted_bytes = "8MiB"
max_unpersisted_bytes = "9MiB"
max_cached_bytes = 0
max_applying_bytes = "10MiB"
max_reads = 14
max_actions = 15
"#;

fn everything() -> NodeConfig {
    let ms = Duration::from_millis;
    NodeConfig {
        election_timeout: ms(1500),
        heartbeat_interval: Some(ms(150)),
        pre_vote: false,
        check_quorum: false,
        lease_reads: true,
        max_clock_drift: Duration::from_micros(250),
        priority: 7,
        quiesce_after: Some(ms(600_000)),
        request_timeout: ms(7000),
        shutdown_timeout: ms(0),
        max_pending: 12,
        disk_stall_timeout: Some(ms(2000)),
        state_hash_every: Some(1000),
        feed_bytes: 2 << 20,
        snapshots: SnapshotPolicy {
            automatic: false,
            entries: 1,
            bytes: 3 << 29,
            size_percent: 20,
            min_pause: ms(2000),
            keep_entries: 3,
            keep_bytes: 4,
            hold_bytes: 5 << 10,
            piece_bytes: 6,
        },
        snapshot_limits: SnapshotLimits {
            take_rate: None,
            send_rate: NonZeroU64::new(10_000_000),
            receive_rate: NonZeroU64::new(1_000_000),
            sends: 5,
            receives: 6,
            chunk_bytes: 64 << 10,
            sync_bytes: 1 << 20,
            stall_timeout: ms(3000),
            queue_timeout: ms(4000),
            source: SnapshotSourcing::Always,
        },
        limits: LimitsConfig {
            max_append_bytes: 512 << 10,
            max_inflight_messages: 13,
            max_inflight_bytes: 1_000_001,
            max_uncommitted_bytes: 8 << 20,
            max_unpersisted_bytes: 9 << 20,
            max_cached_bytes: 0,
            max_applying_bytes: 10 << 20,
            max_reads: 14,
            max_actions: 15,
        },
    }
}

#[test]
fn every_field_is_read_written_and_applied() {
    let config = parse(EVERYTHING);
    assert_eq!(config, everything());
    config.validate().unwrap();
    for config in [config, NodeConfig::default()] {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text), config, "{text}");
    }
    // Whatever the core has is one of these: named here one by one, so that a new one is not forgotten.
    let mut applied = Config { seed: 5, group: GroupId(6), ..Config::new(NodeId(4)) };
    everything().apply_to(&mut applied);
    let ms = Duration::from_millis;
    assert_eq!(
        applied,
        Config {
            id: NodeId(4),
            group: GroupId(6),
            seed: 5,
            election_timeout: ms(1500),
            heartbeat_interval: ms(150),
            pre_vote: false,
            check_quorum: false,
            lease_reads: true,
            max_clock_drift: Duration::from_micros(250),
            priority: 7,
            quiesce_after: ms(600_000),
            max_append_bytes: 512 << 10,
            max_inflight_messages: 13,
            max_inflight_bytes: 1_000_001,
            max_uncommitted_bytes: 8 << 20,
            max_unpersisted_bytes: 9 << 20,
            max_cached_bytes: 0,
            max_applying_bytes: 10 << 20,
            max_reads: 14,
            max_actions: 15,
        }
    );
}

/// Each setting gets to the builder: none but what is the node's own is left as it was.
#[test]
fn a_builder_takes_them_all() {
    let ms = Duration::from_millis;
    let config = everything();
    let by_hand = crate::Node::<Never>::builder(NodeId(1))
        .config(|core| config.apply_to(core))
        .request_timeout(ms(7000))
        .shutdown_timeout(ms(0))
        .max_pending(12)
        .disk_stall_timeout(ms(2000))
        .compare_state_every(NonZeroU64::new(1000).unwrap())
        .feed_bytes(2 << 20)
        .snapshots(config.snapshots.clone())
        .snapshot_limits(config.snapshot_limits.clone());
    let at_once = crate::Node::<Never>::builder(NodeId(1)).with_config(config);
    assert_eq!(format!("{at_once:?}"), format!("{by_hand:?}"));
}

#[tokio::test]
async fn what_is_not_valid_starts_nothing() {
    let builder = crate::Node::<Never>::builder(NodeId(1)).store(MemoryStore::default());
    let error = builder.with_config(parse("max_pending = 0")).start(Never).await.unwrap_err();
    let StartError::NodeConfig(error) = error else { panic!("{error:?}") };
    assert_eq!((&*error.field, &*error.value), ("max_pending", "0"));
    // What is the host's is not silently ignored.
    let host = Host::builder(NodeId(1)).start(MemoryStore::default()).unwrap();
    host.create(GroupId(1), Membership::of_voters([NodeId(1)])).await.unwrap();
    let limits = parse("[snapshot_limits]\nsends = 3");
    let error = host.group(GroupId(1)).with_config(limits).start(Never).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the settings: snapshot_limits is given, but must be left out for a node of a Host, which has its own"
    );
    let policy = parse("[snapshots]\nentries = 3");
    host.group(GroupId(1)).with_config(policy).start(Never).await.unwrap();
    host.shutdown().await;
}

#[test]
fn what_is_left_out_follows_from_the_election_timeout() {
    let config = parse(r#"election_timeout = "3s""#);
    assert_eq!(
        (config.heartbeat_interval(), config.disk_stall_timeout()),
        (Duration::from_millis(300), Duration::from_secs(3))
    );
}

#[test]
fn what_can_not_be_read_is_named() {
    for (text, why) in [
        ("election_timout = \"1s\"", "unknown field `election_timout`"),
        ("[limits]\nmax_append = 1", "unknown field `max_append`"),
        ("[snapshots]\nevery = 1", "unknown field `every`"),
        (
            "election_timeout = 150",
            "invalid type: integer `150`, expected a duration with its unit, such as \"150ms\"",
        ),
        (
            "election_timeout = \"150\"",
            "\"150\" is no duration: time unit needed, for example 150sec or 150ms",
        ),
        ("quiesce_after = \"soon\"", "\"soon\" is no duration: expected number at 0"),
        ("[limits]\nmax_append_bytes = \"1 mile\"", "\"1 mile\" is no size: couldn't parse"),
        ("[limits]\nmax_append_bytes = true", "expected a number of bytes, or a text such as \"16MiB\""),
        ("[limits]\nmax_append_bytes = -1", "invalid value: integer `-1`"),
        ("[snapshot_limits]\ntake_rate = \"fast\"", "\"fast\" is no size: couldn't parse"),
        ("[snapshot_limits]\ntake_rate = 0", "expected bytes a second, at least 1: a number"),
        (
            "[snapshot_limits]\nsource = \"maybe\"",
            "unknown variant `maybe`, expected one of `never`, `when_busy`",
        ),
        ("priority = 256", "invalid value: integer `256`, expected u8"),
    ] {
        let error = toml::from_str::<NodeConfig>(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn what_is_out_of_range_is_named_with_its_value_and_the_rule() {
    for (text, expected) in [
        ("heartbeat_interval = \"1us\"", "heartbeat_interval is 1µs, but must be at least 1 ms"),
        (
            "heartbeat_interval = \"600ms\"",
            "election_timeout is 1s, but must be at least twice heartbeat_interval",
        ),
        ("election_timeout = \"2h\"", "election_timeout is 7200s, but must be at most an hour"),
        (
            "lease_reads = true\nmax_clock_drift = \"501ms\"",
            "max_clock_drift is 501ms, but must be at most half of election_timeout",
        ),
        (
            "quiesce_after = \"1ms\"",
            "quiesce_after is 1ms, but must be at least election_timeout, or left out",
        ),
        ("request_timeout = \"0s\"", "request_timeout is 0ns, but must be from 1 ms to an hour"),
        ("shutdown_timeout = \"61min\"", "shutdown_timeout is 3660s, but must be at most an hour"),
        ("disk_stall_timeout = \"1us\"", "disk_stall_timeout is 1µs, but must be from 1 ms to an hour"),
        ("max_pending = 0", "max_pending is 0, but must be from 1 to 16,777,216"),
        ("state_hash_every = 0", "state_hash_every is 0, but must be at least 1, or left out"),
        ("[snapshots]\nentries = 0", "snapshots.entries is 0, but must be at least 1"),
        ("[snapshot_limits]\nsends = 0", "snapshot_limits.sends is 0, but must be 1 to 1024"),
        (
            "[snapshot_limits]\nsend_rate = 1",
            "snapshot_limits.send_rate is 1, but must be at least chunk_bytes a second",
        ),
        (
            "[limits]\nmax_append_bytes = \"9MiB\"",
            "limits.max_append_bytes is 9437184 B, but must be from 1 B to 8 MiB",
        ),
        ("[limits]\nmax_reads = 0", "limits.max_reads is 0, but must be from 1 to 1,048,576"),
    ] {
        assert_eq!(parse(text).validate().unwrap_err().to_string(), expected);
    }
}
