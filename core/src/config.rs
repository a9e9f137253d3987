//! How a node is set up: parsed once, valid ever after.

use core::time::Duration;

use crate::{GroupId, NodeId, wire::MAX_FRAME};

/// How a node behaves. [`Config::new`] gives good defaults for a local network; [`Raft::new`](crate::Raft::new) looks
/// it through.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Its group, of those that the process hosts.
    pub group: GroupId,
    /// For the randomised election timeouts; group, node and incarnation are mixed in, so it may be the same for all.
    pub seed: u64,
    /// A follower that hears nothing for one to two of these begins an election (paper §5.2). Default 1 s, at least
    /// 2 heartbeats, at most an hour.
    pub election_timeout: Duration,
    /// How often a leader says that it lives. Default 100 ms, at least 1 ms.
    pub heartbeat_interval: Duration,
    /// Ask before campaigning, so that a node that was cut off disturbs nobody when it returns (dissertation 9.6).
    /// Default on.
    pub pre_vote: bool,
    /// A leader that hears from no quorum for an election timeout steps down (dissertation 6.2). Default on.
    pub check_quorum: bool,
    /// Somebody in the cluster serves [`ReadKind::Lease`](crate::ReadKind) from a lease: all nodes must have this on then,
    /// with the same election timeout, or none. A leader's lease rests on followers that keep their votes back for an
    /// election timeout after they have heard it, across a restart too. Needs a clock that counts the time that the
    /// machine was suspended. Default off.
    pub lease_reads: bool,
    /// By how much two clocks may drift apart within an election timeout; leases are shorter by this. Default
    /// 100 ms, at most half an election timeout.
    pub max_clock_drift: Duration,
    /// A group in which nothing has happened for so long falls asleep: it sends nothing and waits for nothing until something does.
    /// Zero: never, the default; else at least `election_timeout`. All nodes must have this on, or one that has not keeps the
    /// leader awake; the same goes for a release that doesn't know it, so it is switched on when all nodes do. While its members
    /// are being asked to sleep, and until it has woken, a group has no lease.
    ///
    /// A driver then owes [`Input::Unreachable`](crate::Input::Unreachable) and
    /// [`Input::Reachable`](crate::Input::Reachable): nobody else notices that a leader dies in its sleep.
    #[cfg_attr(feature = "serde", serde(default))]
    pub quiesce_after: Duration,
    /// Who campaigns first when a leader is lost: below 255, a node waits longer, at 0 by one more election timeout. Only
    /// for its first attempt, so that a favourite that is dead holds nobody up for long. Default 255.
    pub priority: u8,
    /// Bytes of entries in one append. Default 256 KiB, at most 8 MiB.
    pub max_append_bytes: usize,
    /// Appends under way to one peer. Default 64.
    pub max_inflight_messages: usize,
    /// Bytes of entries under way to one peer. Default 4 MiB.
    pub max_inflight_bytes: usize,
    /// Bytes of proposals that are not committed, or not yet handed to apply; beyond it, proposals are refused. So no
    /// batch may be bigger. Default 16 MiB, at most 32 MiB.
    pub max_uncommitted_bytes: usize,
    /// Bytes of entries that a node holds not yet durable; beyond it, a follower drops appends and a leader refuses
    /// proposals. Default 16 MiB.
    pub max_unpersisted_bytes: usize,
    /// Bytes of durable entries kept in memory for followers and for apply. Default 4 MiB.
    pub max_cached_bytes: usize,
    /// Bytes of entries handed to apply and not yet applied. Default 4 MiB.
    pub max_applying_bytes: usize,
    /// Reads that wait for an answer, here or at the leader; and as many that wait for an index. Default 8,192.
    pub max_reads: usize,
    /// Actions that nobody has polled; beyond it requests are refused, messages dropped, and ticks as well, until some have
    /// been. Default 8,192.
    pub max_actions: usize,
}

/// Why a configuration is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} is {value}, but must be {rule}")]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// What it was: µs, bytes or a count.
    pub value: u64,
    /// What it must be.
    pub rule: &'static str,
}

impl Config {
    /// Good defaults for node `id`.
    #[must_use]
    pub const fn new(id: NodeId) -> Self {
        Self {
            id,
            group: GroupId(0),
            seed: 0,
            election_timeout: Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(100),
            pre_vote: true,
            check_quorum: true,
            lease_reads: false,
            max_clock_drift: Duration::from_millis(100),
            quiesce_after: Duration::ZERO,
            priority: 255,
            max_append_bytes: 256 << 10,
            max_inflight_messages: 64,
            max_inflight_bytes: 4 << 20,
            max_uncommitted_bytes: 16 << 20,
            max_unpersisted_bytes: 16 << 20,
            max_cached_bytes: 4 << 20,
            max_applying_bytes: 4 << 20,
            max_reads: 8192,
            max_actions: 8192,
        }
    }

    /// Is every field in its range?
    ///
    /// # Errors
    /// The first that is not, with what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let election = micros(self.election_timeout);
        let heartbeat = micros(self.heartbeat_interval);
        let rule = |ok: bool, field, value, rule| {
            if ok { Ok(()) } else { Err(ConfigError { field, value, rule }) }
        };
        rule(self.id.0 > 0 && self.id.0 < u64::MAX, "id", self.id.0, "from 1 to 2^64 - 2")?;
        rule(heartbeat >= 1000, "heartbeat_interval (µs)", heartbeat, "at least 1 ms")?;
        let twice = heartbeat.saturating_mul(2);
        rule(election >= twice, "election_timeout (µs)", election, "at least twice heartbeat_interval")?;
        rule(election <= 3_600_000_000, "election_timeout (µs)", election, "at most an hour")?;
        let drift = micros(self.max_clock_drift);
        let fits = !self.lease_reads || drift <= election / 2;
        rule(fits, "max_clock_drift (µs)", drift, "at most half of election_timeout")?;
        let quiesce = micros(self.quiesce_after);
        let fits = quiesce == 0 || quiesce >= election;
        rule(fits, "quiesce_after (µs)", quiesce, "zero, or at least election_timeout")?;
        // Whatever is taken must fit into a frame, or it could never be replicated: an entry can't be split. An append may
        // hold a great many small runs, each with a header that is longer than the run.
        let append = self.max_append_bytes;
        rule((1..=MAX_FRAME / 8).contains(&append), "max_append_bytes", append as u64, "from 1 B to 8 MiB")?;
        let batch = self.max_uncommitted_bytes;
        rule(
            (1..=MAX_FRAME / 2).contains(&batch),
            "max_uncommitted_bytes",
            batch as u64,
            "from 1 B to 32 MiB",
        )?;
        for (field, bytes) in [
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("max_unpersisted_bytes", self.max_unpersisted_bytes),
            ("max_applying_bytes", self.max_applying_bytes),
        ] {
            rule((1..=1 << 30).contains(&bytes), field, bytes as u64, "from 1 B to 1 GiB")?;
        }
        for (field, count) in [
            ("max_inflight_messages", self.max_inflight_messages),
            ("max_reads", self.max_reads),
            ("max_actions", self.max_actions),
        ] {
            rule((1..=1 << 20).contains(&count), field, count as u64, "from 1 to 1,048,576")?;
        }
        Ok(())
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
