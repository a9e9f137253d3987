//! The swarm: each seed draws which faults there are and how strong, so that rare combinations are met.

use std::time::Duration;

use quorate_core::{Config, NodeId};

use crate::{
    Options,
    rng::{Purpose, Rng},
};

/// Which faults may be drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// No faults but delay.
    Calm,
    /// Messages are lost, repeated, held up and cut off.
    Network,
    /// Processes crash and disks are slow or fail.
    Disk,
    /// All of it, pauses and unequal clocks too.
    Everything,
}

/// What a seed has drawn. Times in µs; chances from 0 to 1.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) nodes: usize,
    pub(crate) config: Config,
    /// µs of virtual time with faults; afterwards the cluster must come to rest.
    pub(crate) duration: u64,

    pub(crate) delay_min: u64,
    pub(crate) delay_mean: u64,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// A message is sent again much later.
    pub(crate) replay: f64,
    pub(crate) corrupt: f64,
    /// A follower says less precisely than it could how far its log may agree: as another version might.
    pub(crate) vague: f64,
    /// Messages that travel as bytes; the others as they are, for speed.
    pub(crate) as_bytes: f64,
    /// Mean time between cuts, and mean length of one; 0 for none.
    pub(crate) cut_every: u64,
    pub(crate) cut_mean: u64,
    pub(crate) clogs: bool,

    pub(crate) disk_mean: u64,
    /// Writes that are queued are merged into one commit.
    pub(crate) group_commit: f64,
    pub(crate) disk_stall: f64,
    /// A commit fails: nobody knows what is durable of it.
    pub(crate) disk_fails: f64,
    /// What a state machine has applied survives a crash.
    pub(crate) durable_machine: bool,
    pub(crate) apply_mean: u64,

    /// Mean time between crashes; 0 for none.
    pub(crate) crash_every: u64,
    pub(crate) down_mean: u64,
    /// A crash between one action and the next.
    pub(crate) crash_at_action: f64,
    /// Mean time between pauses; 0 for none.
    pub(crate) pause_every: u64,
    pub(crate) pause_mean: u64,

    /// How much faster or slower clocks go: parts per million.
    pub(crate) drift: u64,
    /// How long after its deadline a tick may come.
    pub(crate) tick_jitter: u64,

    /// Mean time between requests.
    pub(crate) request_every: u64,
    pub(crate) read_share: f64,
    pub(crate) largest_batch: u64,

    /// At the end only a quorum comes back, and the others stay half cut off for ever.
    pub(crate) quorum_only: bool,
}

impl Plan {
    pub(crate) fn draw(options: &Options) -> Self {
        let rng = &mut Rng::new(options.seed, Purpose::Plan);
        let nodes = options.nodes.unwrap_or_else(|| rng.pick(&[3, 3, 3, 5, 5, 5, 4, 1, 7, 2]));
        let profile = options.profile;
        let network = matches!(profile, Profile::Network | Profile::Everything);
        let disk = matches!(profile, Profile::Disk | Profile::Everything);
        let all = profile == Profile::Everything;
        let heartbeat = rng.between(20, 100) * 1000;
        // One draw a line, whatever the profile is: so that profiles differ in nothing else.
        let mut on = |enabled: bool, p: f64| rng.chance(p) && enabled;
        let flags = [
            on(network, 0.6),
            on(network, 0.5),
            on(network, 0.5),
            on(network, 0.3),
            on(network, 0.8),
            on(network, 0.4),
            on(disk, 0.8),
            on(disk, 0.4),
            on(disk, 0.4),
            on(disk, 0.3),
            on(all, 0.5),
            on(all, 0.5),
            on(network || disk, 0.3),
        ];
        let [
            loss,
            duplicate,
            replay,
            corrupt,
            cuts,
            clogs,
            crashes,
            boundary,
            stalls,
            fails,
            pauses,
            drift,
            quorum_only,
        ] = flags;
        let or_zero = |on: bool, value: u64| if on { value } else { 0 };
        let chance = |on: bool, value: f64| if on { value } else { 0.0 };
        let config = configure(rng, heartbeat);
        Self {
            profile,
            nodes,
            duration: options.duration.unwrap_or(60_000_000),
            delay_min: rng.magnitude(50, 2000),
            delay_mean: rng.magnitude(100, heartbeat / 2),
            loss: chance(loss, rng.unit() * 0.3),
            duplicate: chance(duplicate, rng.unit() * 0.2),
            replay: chance(replay, rng.unit() * 0.05),
            corrupt: chance(corrupt, rng.unit() * 0.05),
            vague: rng.pick(&[0.0, 0.0, 0.5]),
            as_bytes: rng.pick(&[0.02, 0.1, 1.0]),
            cut_every: or_zero(cuts, rng.magnitude(200_000, 10_000_000)),
            cut_mean: rng.magnitude(100_000, 5_000_000),
            clogs,
            disk_mean: rng.magnitude(50, 20_000),
            group_commit: rng.pick(&[0.0, 0.5, 1.0]),
            disk_stall: chance(stalls, 0.01),
            disk_fails: chance(fails, 0.001),
            durable_machine: rng.chance(0.5),
            apply_mean: rng.magnitude(10, 20_000),
            crash_every: or_zero(crashes, rng.magnitude(500_000, 10_000_000)),
            down_mean: rng.magnitude(10_000, 4_000_000),
            crash_at_action: chance(boundary, 0.0005),
            pause_every: or_zero(pauses, rng.magnitude(1_000_000, 10_000_000)),
            pause_mean: rng.magnitude(10_000, 4_000_000),
            drift: or_zero(drift, rng.magnitude(100, 100_000)),
            tick_jitter: rng.magnitude(10, 5000),
            request_every: rng.magnitude(4000, 50_000),
            read_share: rng.pick(&[0.1, 0.3, 0.6]),
            largest_batch: rng.pick(&[1, 4, 20]),
            // A leader that can speak but not hear must know to step down.
            quorum_only: quorum_only && nodes >= 3 && config.check_quorum,
            config,
        }
    }

    /// The configuration of one node.
    pub(crate) fn config_of(&self, slot: usize) -> Config {
        Config { id: NodeId(slot as u64 + 1), ..self.config.clone() }
    }

    /// The shortest election timeout, in µs.
    pub(crate) fn election(&self) -> u64 {
        self.config.election_timeout.as_micros() as u64
    }
}

/// Small windows and caches, so that their edges are met.
fn configure(rng: &mut Rng, heartbeat: u64) -> Config {
    let mut config = Config::new(NodeId(1));
    config.seed = rng.next();
    config.heartbeat_interval = Duration::from_micros(heartbeat);
    config.election_timeout = Duration::from_micros(heartbeat * rng.between(5, 12));
    config.pre_vote = rng.chance(0.75);
    config.check_quorum = rng.chance(0.75);
    config.max_inflight_messages = rng.magnitude(1, 64) as usize;
    config.max_append_bytes = rng.magnitude(64, 1 << 16) as usize;
    config.max_inflight_bytes = rng.magnitude(256, 1 << 18) as usize;
    config.max_cached_bytes = rng.magnitude(64, 1 << 16) as usize;
    config.max_applying_bytes = rng.magnitude(64, 1 << 16) as usize;
    config.max_uncommitted_bytes = rng.magnitude(1 << 10, 1 << 18) as usize;
    config.max_unpersisted_bytes = rng.magnitude(1 << 10, 1 << 18) as usize;
    config.max_reads = rng.magnitude(4, 1024) as usize;
    config
}
