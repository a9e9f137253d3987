//! All settings of a node in one value that can be read from a file.

#[cfg(all(test, feature = "serde"))]
mod tests;
#[cfg(feature = "serde")]
pub(crate) mod text;

use std::{fmt, time::Duration};

use quorate_core::{Config, NodeId};

use crate::{
    builder::{DEFAULT_FEED_BYTES, DEFAULT_MAX_PENDING, DEFAULT_REQUEST_TIMEOUT, DEFAULT_SHUTDOWN_TIMEOUT},
    snapshots::{SnapshotConfigError, SnapshotLimits, SnapshotPolicy},
};

/// The settings of a node, but for those that say who it is (id, group, store, transport) and how it is looked at (metrics, a
/// recording): [`Builder::with_config`](crate::Builder::with_config) takes them. [`NodeConfig::default`] has the defaults of
/// [`Builder`](crate::Builder), and so has what is left out of a file.
///
/// With the feature `serde` it can be read from TOML and other formats. Durations are texts such as `"150ms"`; sizes are
/// numbers of bytes, or texts such as `"16MiB"`; what is unknown is refused.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use quorate_runtime_tokio::NodeConfig;
///
/// let config: NodeConfig = toml::from_str(r#"
///     election_timeout = "500ms"
///     lease_reads = true
///
///     [limits]
///     max_append_bytes = "512KiB"
///
///     [snapshots]
///     entries = 50_000
/// "#).unwrap();
/// config.validate().unwrap();
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct NodeConfig {
    /// [`Config::election_timeout`]. Default 1 s, at least 2 heartbeats, at most an hour.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub election_timeout: Duration,
    /// [`Config::heartbeat_interval`]. At least 1 ms; `None`, the default: a tenth of `election_timeout`.
    #[cfg_attr(
        feature = "serde",
        serde(with = "text::some_duration", skip_serializing_if = "Option::is_none")
    )]
    pub heartbeat_interval: Option<Duration>,
    /// [`Config::pre_vote`]. Default on.
    pub pre_vote: bool,
    /// [`Config::check_quorum`]. Default on.
    pub check_quorum: bool,
    /// [`Config::lease_reads`]: on in the whole cluster, or nowhere. Default off.
    pub lease_reads: bool,
    /// [`Config::max_clock_drift`]. Default 100 ms; with leases, at most half of `election_timeout`.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub max_clock_drift: Duration,
    /// [`Config::priority`], from 0 to 255. Default 255.
    pub priority: u8,
    /// [`Builder::quiesce_after`](crate::Builder::quiesce_after): on in the whole cluster, or nowhere. At least
    /// `election_timeout`; `None`, the default: never.
    #[cfg_attr(
        feature = "serde",
        serde(with = "text::some_duration", skip_serializing_if = "Option::is_none")
    )]
    pub quiesce_after: Option<Duration>,
    /// [`Builder::request_timeout`](crate::Builder::request_timeout). Default 5 s, at least 1 ms, at most an hour.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub request_timeout: Duration,
    /// [`Builder::shutdown_timeout`](crate::Builder::shutdown_timeout). Default 1 s, at most an hour.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub shutdown_timeout: Duration,
    /// [`Builder::max_pending`](crate::Builder::max_pending). From 1 to 16,777,216; default 65,536.
    pub max_pending: usize,
    /// [`Builder::disk_stall_timeout`](crate::Builder::disk_stall_timeout). At least 1 ms; `None`, the default:
    /// `election_timeout`.
    #[cfg_attr(
        feature = "serde",
        serde(with = "text::some_duration", skip_serializing_if = "Option::is_none")
    )]
    pub disk_stall_timeout: Option<Duration>,
    /// [`Builder::compare_state_every`](crate::Builder::compare_state_every): the same on all nodes. At least 1; `None`, the
    /// default: never.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub state_hash_every: Option<u64>,
    /// [`Builder::feed_bytes`](crate::Builder::feed_bytes). Default 1 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub feed_bytes: usize,
    /// When snapshots are taken, and how much of the log stays: [`Builder::snapshots`](crate::Builder::snapshots).
    pub snapshots: SnapshotPolicy,
    /// How much snapshots may take of the process: [`Builder::snapshot_limits`](crate::Builder::snapshot_limits). A node of a
    /// [`Host`](crate::Host) must leave this out: those are the host's, to be given to
    /// [`HostBuilder::snapshot_limits`](crate::HostBuilder::snapshot_limits).
    pub snapshot_limits: SnapshotLimits,
    /// Bounds of the protocol.
    pub limits: LimitsConfig,
}

/// The bounds in [`Config`]: see there.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct LimitsConfig {
    /// [`Config::max_append_bytes`]. From 1 B to 8 MiB; default 256 KiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub max_append_bytes: usize,
    /// [`Config::max_inflight_messages`]. From 1 to 1,048,576; default 64.
    pub max_inflight_messages: usize,
    /// [`Config::max_inflight_bytes`]. From 1 B to 1 GiB; default 4 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub max_inflight_bytes: usize,
    /// [`Config::max_uncommitted_bytes`]. From 1 B to 32 MiB; default 16 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub max_uncommitted_bytes: usize,
    /// [`Config::max_unpersisted_bytes`]. From 1 B to 1 GiB; default 16 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub max_unpersisted_bytes: usize,
    /// [`Config::max_cached_bytes`]. Default 4 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub max_cached_bytes: usize,
    /// [`Config::max_applying_bytes`]. From 1 B to 1 GiB; default 4 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub max_applying_bytes: usize,
    /// [`Config::max_reads`]. From 1 to 1,048,576; default 8,192.
    pub max_reads: usize,
    /// [`Config::max_actions`]. From 1 to 1,048,576; default 8,192.
    pub max_actions: usize,
}

/// Why settings are none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} is {value}, but must be {rule}")]
pub struct NodeConfigError {
    /// The field's name, as in a file: with its table in front, if it is in one.
    pub field: String,
    /// What it was, with its unit.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let core = Config::new(NodeId(1));
        Self {
            election_timeout: core.election_timeout,
            heartbeat_interval: None,
            pre_vote: core.pre_vote,
            check_quorum: core.check_quorum,
            lease_reads: core.lease_reads,
            max_clock_drift: core.max_clock_drift,
            priority: core.priority,
            quiesce_after: None,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            max_pending: DEFAULT_MAX_PENDING,
            disk_stall_timeout: None,
            state_hash_every: None,
            feed_bytes: DEFAULT_FEED_BYTES,
            snapshots: SnapshotPolicy::default(),
            snapshot_limits: SnapshotLimits::default(),
            limits: LimitsConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let core = Config::new(NodeId(1));
        Self {
            max_append_bytes: core.max_append_bytes,
            max_inflight_messages: core.max_inflight_messages,
            max_inflight_bytes: core.max_inflight_bytes,
            max_uncommitted_bytes: core.max_uncommitted_bytes,
            max_unpersisted_bytes: core.max_unpersisted_bytes,
            max_cached_bytes: core.max_cached_bytes,
            max_applying_bytes: core.max_applying_bytes,
            max_reads: core.max_reads,
            max_actions: core.max_actions,
        }
    }
}

impl NodeConfig {
    /// The heartbeat interval, given or not.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_interval.unwrap_or(self.election_timeout / 10)
    }

    /// The disk's time, given or not.
    #[must_use]
    pub fn disk_stall_timeout(&self) -> Duration {
        self.disk_stall_timeout.unwrap_or(self.election_timeout)
    }

    /// Puts into a core's configuration what is the core's. Who it is, and its seed, stay as they are.
    pub fn apply_to(&self, config: &mut Config) {
        config.election_timeout = self.election_timeout;
        config.heartbeat_interval = self.heartbeat_interval();
        config.pre_vote = self.pre_vote;
        config.check_quorum = self.check_quorum;
        config.lease_reads = self.lease_reads;
        config.max_clock_drift = self.max_clock_drift;
        config.priority = self.priority;
        config.quiesce_after = self.quiesce_after.unwrap_or(Duration::ZERO);
        let limits = &self.limits;
        config.max_append_bytes = limits.max_append_bytes;
        config.max_inflight_messages = limits.max_inflight_messages;
        config.max_inflight_bytes = limits.max_inflight_bytes;
        config.max_uncommitted_bytes = limits.max_uncommitted_bytes;
        config.max_unpersisted_bytes = limits.max_unpersisted_bytes;
        config.max_cached_bytes = limits.max_cached_bytes;
        config.max_applying_bytes = limits.max_applying_bytes;
        config.max_reads = limits.max_reads;
        config.max_actions = limits.max_actions;
    }

    /// Is every field in its range?
    ///
    /// # Errors
    /// The first that is not, with what it must be.
    pub fn validate(&self) -> Result<(), NodeConfigError> {
        let mut core = Config::new(NodeId(1));
        self.apply_to(&mut core);
        // Looked at below, under the name and in the unit that it has here.
        core.quiesce_after = Duration::ZERO;
        core.validate().map_err(Self::named)?;
        let stall = self.disk_stall_timeout();
        validate_driver(self.request_timeout, self.shutdown_timeout, stall, self.max_pending)?;
        if let Some(quiesce) = self.quiesce_after {
            let must = "at least election_timeout, or left out";
            time(quiesce >= self.election_timeout, "quiesce_after", quiesce, must)?;
        }
        let every = self.state_hash_every;
        rule(every != Some(0), "state_hash_every", 0, "at least 1, or left out")?;
        self.snapshots.validate().map_err(|error| Self::of("snapshots", &error))?;
        self.snapshot_limits.validate().map_err(|error| Self::of("snapshot_limits", &error))
    }

    /// Is there nothing in it that is the host's? Of a node of a [`Host`](crate::Host) there must not be.
    pub(crate) fn validate_at_host(&self) -> Result<(), NodeConfigError> {
        let own = self.snapshot_limits == SnapshotLimits::default();
        rule(own, "snapshot_limits", "given", "left out for a node of a Host, which has its own")
    }

    /// What is wrong about snapshots, as a file has it.
    fn of(table: &str, error: &SnapshotConfigError) -> NodeConfigError {
        let SnapshotConfigError { field, must, found } = error;
        NodeConfigError { field: format!("{table}.{field}"), value: found.to_string(), rule: must }
    }

    /// An error of the core's, as a file has it.
    fn named(error: quorate_core::ConfigError) -> NodeConfigError {
        let (name, unit) = match error.field.split_once(" (") {
            Some((name, _)) => (name, "time"),
            None if error.field.ends_with("_bytes") => (error.field, "bytes"),
            None => (error.field, ""),
        };
        let value = match unit {
            "time" => format!("{:?}", Duration::from_micros(error.value)),
            "bytes" => format!("{} B", error.value),
            _ => error.value.to_string(),
        };
        let table = if name.starts_with("max_") && name != "max_clock_drift" { "limits." } else { "" };
        NodeConfigError { field: format!("{table}{name}"), value, rule: error.rule }
    }
}

/// Is what the driver goes by in its range, wherever it was said?
pub(crate) fn validate_driver(
    request_timeout: Duration,
    shutdown_timeout: Duration,
    disk_stall_timeout: Duration,
    max_pending: usize,
) -> Result<(), NodeConfigError> {
    const HOUR: Duration = Duration::from_secs(3600);
    let range = Duration::from_millis(1)..=HOUR;
    for (field, value) in [("request_timeout", request_timeout), ("disk_stall_timeout", disk_stall_timeout)] {
        time(range.contains(&value), field, value, "from 1 ms to an hour")?;
    }
    time(shutdown_timeout <= HOUR, "shutdown_timeout", shutdown_timeout, "at most an hour")?;
    rule((1..=1 << 24).contains(&max_pending), "max_pending", max_pending, "from 1 to 16,777,216")
}

fn time(ok: bool, field: &str, value: Duration, must: &'static str) -> Result<(), NodeConfigError> {
    rule(ok, field, format!("{value:?}"), must)
}

fn rule(ok: bool, field: &str, value: impl fmt::Display, rule: &'static str) -> Result<(), NodeConfigError> {
    if ok {
        return Ok(());
    }
    Err(NodeConfigError { field: field.to_owned(), value: value.to_string(), rule })
}
