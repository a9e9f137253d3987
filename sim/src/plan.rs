//! The swarm: each seed draws which faults there are and how strong, so that rare combinations are met.

use std::time::Duration;

use quorate_core::{Config, Membership, MembershipParts, NodeId};
use serde::{Deserialize, Serialize};

use crate::{
    Options,
    cast::Cast,
    faults::Planned,
    lab::Setup,
    rng::{Purpose, Rng},
    workload::Service,
};

/// Which faults may be drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// No faults but delay.
    Calm,
    /// Messages are lost, repeated, held up and cut off.
    Network,
    /// Processes crash and disks are slow or fail.
    Disk,
    /// Nodes come and go, leadership is handed over, and all that faults do to that.
    Membership,
    /// Leases, and clocks that drift as much as they may.
    Clock,
    /// Leases, and clocks that drift more than they may: stale reads are to be expected, and must be noticed.
    Drift,
    /// All of it, pauses and unequal clocks too.
    Everything,
    /// Disks that say of what they have not done that it is durable: a loss is to be expected, and must be noticed.
    Lies,
    /// Disks on which an old image is restored: a loss is to be expected, and must be noticed.
    Stale,
}

/// A kind of fault, or of circumstance, that can be left out of whatever a seed draws.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Without {
    /// Messages that are lost.
    Loss,
    /// Messages that arrive twice, or again much later.
    Duplicates,
    /// Messages that are damaged.
    Damage,
    /// Hints that say less than they could.
    Vagueness,
    /// Partitions, and clogged links.
    Cuts,
    /// Links that flap.
    Flaps,
    /// Leaders that are held up, or lose some of the others.
    Holds,
    /// Crashes at random times.
    Crashes,
    /// Crashes between two actions.
    CrashesAtActions,
    /// Groups that are started again within their process.
    Reopens,
    /// Processes that stop for a while.
    Pauses,
    /// Disks that stall.
    Stalls,
    /// Disks that fail, or are full.
    DiskFailures,
    /// Disks that are damaged.
    Rot,
    /// State machines that stall.
    ApplyStalls,
    /// Clocks that differ.
    Drift,
    /// Clocks that are set back or forth.
    Jumps,
    /// Ticks that come before they are due.
    EarlyTicks,
    /// Snapshots and compaction.
    Snapshots,
    /// Changes of the membership.
    Changes,
    /// Leadership that is handed over.
    Transfers,
    /// Campaigns and the like that somebody asks for.
    Meddling,
    /// Nodes that differ in priority.
    Priorities,
    /// Groups that sleep, and times in which nobody asks for anything.
    Sleep,
    /// Leaders that step down by their driver's wish.
    StepDowns,
    /// Learners and joint memberships at the beginning.
    UnequalMembers,
    /// An end at which only a quorum comes back.
    QuorumOnly,
    /// More than one command at a time, and commands of any length.
    Batches,
}

impl Without {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Loss,
        Self::Duplicates,
        Self::Damage,
        Self::Vagueness,
        Self::Cuts,
        Self::Flaps,
        Self::Holds,
        Self::Crashes,
        Self::CrashesAtActions,
        Self::Reopens,
        Self::Pauses,
        Self::Stalls,
        Self::DiskFailures,
        Self::Rot,
        Self::ApplyStalls,
        Self::Drift,
        Self::Jumps,
        Self::EarlyTicks,
        Self::Snapshots,
        Self::Changes,
        Self::Transfers,
        Self::Meddling,
        Self::Priorities,
        Self::Sleep,
        Self::StepDowns,
        Self::UnequalMembers,
        Self::QuorumOnly,
        Self::Batches,
    ];
}

/// How long messages take, about their mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delays {
    Exponential,
    Uniform,
    /// Most take a short way, some a long one.
    TwoWays,
    HeavyTailed,
}

impl Profile {
    /// May anything happen?
    const fn is_mixed(self) -> bool {
        !matches!(self, Self::Calm | Self::Network | Self::Disk)
    }

    /// May groups fall asleep?
    pub(crate) const fn may_sleep(self) -> bool {
        matches!(self, Self::Membership | Self::Clock | Self::Everything)
    }

    /// Is a violation to be expected, and to be noticed?
    #[must_use]
    pub const fn must_be_noticed(self) -> bool {
        matches!(self, Self::Drift | Self::Lies | Self::Stale)
    }
}

/// What a seed has drawn. Times in µs; chances from 0 to 1.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) setup: Setup,
    /// µs of virtual time with faults; afterwards the cluster must come to rest.
    pub(crate) duration: u64,

    pub(crate) delays: Delays,
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

    /// Mean time between what an operator does; 0 for never.
    pub(crate) operate_every: u64,
    /// How often, compared with each other: membership changes, transfers, and meddling.
    pub(crate) operations: [u64; 3],
    /// Who was removed goes on for ever.
    pub(crate) linger: f64,
    /// Mean time between snapshots, of one node or another; 0 for none.
    pub(crate) snapshot_every: u64,
    /// Mean time that it takes to write, send or restore one.
    pub(crate) snapshot_mean: u64,
    /// One doesn't come through.
    pub(crate) snapshot_fails: f64,
    /// Commands are shorter than this.
    pub(crate) longest_command: u64,
    /// A state machine takes seconds over something.
    pub(crate) apply_stall: f64,
    /// Mean time between jumps of a clock, back or forth; 0 for none.
    pub(crate) jump_every: u64,
    /// Mean time between ticks that come before they are due; 0 for none.
    pub(crate) early_tick_every: u64,
    /// Mean time between moments at which all that goes to and from a leader is held up; 0 for none.
    pub(crate) hold_every: u64,

    /// Mean time between groups that are started again within their process; 0 for none. Likewise, between disks that are full,
    /// disks that are damaged, and links that flap.
    pub(crate) reopen_every: u64,
    pub(crate) full_every: u64,
    pub(crate) rot_every: u64,
    pub(crate) flap_every: u64,
    /// A crash shows that the disk has lied, or brings an old image of it back, of so many writes ago at most.
    pub(crate) forgets: f64,
    pub(crate) forgets_most: u64,

    /// Mean time between times in which nobody asks for anything; 0 for none. Then groups may sleep.
    pub(crate) idle_every: u64,
    /// How long it takes a transport to notice that a peer is gone.
    pub(crate) idle_timeout: u64,
    /// Mean time between leaders that are to lead no longer, by their driver's wish; 0 for none.
    pub(crate) step_down_every: u64,

    /// What happens in any case.
    pub(crate) planned: Vec<Planned>,

    /// At the end only a quorum comes back, and the others stay half cut off for ever.
    pub(crate) quorum_only: bool,
}

impl Plan {
    pub(crate) fn draw(options: &Options, cast: &Cast) -> (Self, Service) {
        let rng = &mut Rng::new(options.seed, Purpose::Plan);
        let nodes = options.nodes.unwrap_or_else(|| rng.pick(&[3, 3, 3, 5, 5, 5, 4, 1, 7, 2]));
        let profile = options.profile;
        let all = profile.is_mixed();
        let (network, disk) = (all || profile == Profile::Network, all || profile == Profile::Disk);
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
        let check_quorum = config.check_quorum;
        let plan = Self {
            profile,
            setup: Setup {
                nodes,
                slots: nodes,
                membership: Membership::of_voters((1..=nodes as u64).map(NodeId)),
                priorities: false,
                durable_machine: rng.chance(0.5),
                service: String::new(),
                sessions: true,
                forgetful: matches!(profile, Profile::Lies | Profile::Stale),
                config,
            },
            operate_every: 0,
            operations: [0; 3],
            linger: 0.0,
            snapshot_every: 0,
            snapshot_mean: 0,
            snapshot_fails: 0.0,
            longest_command: 32,
            apply_stall: 0.0,
            jump_every: 0,
            early_tick_every: 0,
            hold_every: 0,
            reopen_every: 0,
            full_every: 0,
            rot_every: 0,
            flap_every: 0,
            forgets: 0.0,
            forgets_most: 0,
            idle_every: 0,
            idle_timeout: 0,
            step_down_every: 0,
            planned: options.planned.clone(),
            delays: Delays::Exponential,
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
            quorum_only: quorum_only && nodes >= 3 && check_quorum,
        };
        let mut plan = plan.with_rarities(&mut Rng::new(options.seed, Purpose::Rare));
        plan.draw_sleep(&mut Rng::new(options.seed, Purpose::Sleep));
        options.without.iter().for_each(|kind| plan.leave_out(*kind));
        plan.obey(&options.faults);
        if let Some(config) = &options.config {
            let seed = plan.setup.config.seed;
            plan.setup.config = Config { seed, id: NodeId(1), ..config.clone() };
        }
        // The user's own, one of those that there are, or whatever is drawn.
        let rng = &mut Rng::new(options.seed, Purpose::Service);
        let drawn = rng.pick(&["register", "counter", "append-list"]);
        let own = cast.service.as_ref().map(|own| own.name);
        let name = own.or(options.workload.as_deref()).unwrap_or(drawn);
        let service = cast.service(name).or_else(|| Service::named(drawn)).unwrap_or_default();
        plan.setup.service = service.name.to_owned();
        plan.setup.sessions = cast.sessions.unwrap_or(rng.chance(0.75));
        (plan, service)
    }

    fn with_rarities(mut self, rng: &mut Rng) -> Self {
        let all = self.profile.is_mixed();
        let (network, disk) = (all || self.profile == Profile::Network, all || self.profile == Profile::Disk);
        let faults = network || disk;
        let on = |rng: &mut Rng, enabled: bool, p: f64| rng.chance(p) && enabled;
        let (jumps, early, holds) = (on(rng, all, 0.3), on(rng, all, 0.3), on(rng, network, 0.4));
        let (long, stalls, unequal) =
            (on(rng, true, 0.3), on(rng, disk, 0.3), on(rng, self.setup.nodes >= 3, 0.25));
        if jumps {
            self.jump_every = rng.magnitude(500_000, 10_000_000);
        }
        if early {
            self.early_tick_every = rng.magnitude(5_000, 500_000);
        }
        if holds {
            self.hold_every = rng.magnitude(2_000_000, 10_000_000);
        }
        if long {
            // A batch that is bigger than the bound would always be refused.
            let most = self.setup.config.max_uncommitted_bytes as u64 / self.largest_batch;
            self.longest_command = rng.magnitude(32, 4096).min(most.saturating_sub(16)).max(32);
        }
        if stalls {
            self.apply_stall = 0.002;
        }
        let snapshots = on(rng, true, 0.7);
        if snapshots {
            self.snapshot_every = rng.magnitude(20_000, 4_000_000);
            self.snapshot_mean = rng.magnitude(100, 500_000);
            self.snapshot_fails = if faults { rng.pick(&[0.0, 0.1, 0.5]) } else { 0.0 };
        }
        self.draw_operator(rng);
        self.draw_leases(rng);
        self.draw_newer_faults(rng);
        // A node that speaks and never hears collects votes in vain, term after term, as long as nobody leads. Only pre-vote
        // promises that the others come first, if their timeouts are much longer than its own.
        let uneven = self.setup.priorities || self.setup.config.lease_reads;
        self.quorum_only &= self.setup.config.pre_vote || !uneven;
        if unequal {
            self.setup.membership = unequal_members(rng, self.setup.nodes).unwrap_or(self.setup.membership);
        }
        self
    }

    fn draw_newer_faults(&mut self, rng: &mut Rng) {
        let all = self.profile.is_mixed();
        let (network, disk) = (all || self.profile == Profile::Network, all || self.profile == Profile::Disk);
        let (reopens, full) = (rng.chance(0.3) && disk, rng.chance(0.3) && disk);
        let (rots, flaps) = (rng.chance(0.3) && disk, rng.chance(0.3) && network);
        if reopens {
            self.reopen_every = rng.magnitude(500_000, 10_000_000);
        }
        if full {
            self.full_every = rng.magnitude(2_000_000, 20_000_000);
        }
        if rots {
            self.rot_every = rng.magnitude(5_000_000, 40_000_000);
            // Somebody must take the place of who is lost.
            if self.operations[0] > 0 {
                self.setup.slots += 2;
            }
        }
        if flaps {
            self.flap_every = rng.magnitude(1_000_000, 20_000_000);
        }
        if network {
            self.delays =
                rng.pick(&[Delays::Exponential, Delays::Uniform, Delays::TwoWays, Delays::HeavyTailed]);
        }
        if self.setup.forgetful {
            let lies = self.profile == Profile::Lies;
            self.forgets = if lies { 0.5 } else { 0.05 };
            self.forgets_most = if lies { 4 } else { 64 };
            self.crash_every = if self.crash_every == 0 { 3_000_000 } else { self.crash_every };
        }
    }

    fn draw_operator(&mut self, rng: &mut Rng) {
        let all = self.profile.is_mixed();
        let focus = self.profile == Profile::Membership;
        let mut on = |p: f64| rng.chance(p) && all;
        let (changes, transfers, meddling) = (on(0.4) || focus, on(0.3), on(0.2));
        self.setup.priorities = on(0.3);
        let mut weigh = |on: bool| if on { rng.between(1, 4) } else { 0 };
        self.operations = [weigh(changes) * 2, weigh(transfers), weigh(meddling)];
        if changes {
            self.setup.slots = self.setup.nodes + rng.between(2, 12) as usize;
            self.linger = rng.pick(&[0.0, 0.3, 1.0]);
        }
        if changes || transfers || meddling {
            self.operate_every = rng.magnitude(self.election() / 4, 5_000_000);
        }
    }

    /// All serve lease reads, or none; clocks drift apart by less than they may, but not by much less.
    fn draw_leases(&mut self, rng: &mut Rng) {
        let focus = matches!(self.profile, Profile::Clock | Profile::Drift);
        let parts: &[u64] = if focus { &[2, 2, 2, 5, 20] } else { &[2, 5, 20, 100] };
        let (on, part) = (rng.chance(0.3), rng.pick(parts));
        if !(focus || on && self.profile.is_mixed()) {
            return;
        }
        let most = self.election() / part;
        self.setup.config.lease_reads = true;
        self.setup.config.max_clock_drift = Duration::from_micros(most);
        // Two clocks, one slow and one fast, differ by twice this in each second; and a lease and the promise that it rests
        // on are measured by one each.
        self.drift = 490_000 / part;
        if self.profile == Profile::Drift {
            self.setup.config.max_clock_drift = Duration::ZERO;
            self.drift = 450_000;
        }
        self.read_share = rng.pick(&[0.5, 0.7]);
        if focus {
            self.pause_every = rng.magnitude(500_000, 5_000_000);
            self.hold_every = rng.magnitude(500_000, 5_000_000);
            // A lease outlives its leader by a few ten milliseconds at most: the next one must be quick to show it.
            self.disk_mean = self.disk_mean.min(1000);
            self.apply_mean = self.apply_mean.min(500);
            self.delay_mean = self.delay_mean.min(self.election() / 100);
            self.request_every = self.request_every.min(8000);
            self.operations[1] += 1;
            self.operate_every = if self.operate_every == 0 { 1_000_000 } else { self.operate_every };
        }
    }

    /// All sleep, or none; and nobody asks for anything for long enough, now and then.
    fn draw_sleep(&mut self, rng: &mut Rng) {
        let (sleeps, steps_down) = (rng.chance(0.4), rng.chance(0.25));
        if !self.profile.may_sleep() {
            return;
        }
        let election = self.election();
        if sleeps && self.setup.nodes > 1 {
            let quiesce = rng.between(election, 4 * election);
            self.setup.config.quiesce_after = Duration::from_micros(quiesce);
            self.idle_timeout = rng.between(election / 4, 3 * election);
            self.idle_every = rng.magnitude(1_000_000, 10_000_000);
        }
        if steps_down {
            self.step_down_every = rng.magnitude(election, 10_000_000);
        }
    }

    fn leave_out(&mut self, kind: Without) {
        match kind {
            Without::Loss => self.loss = 0.0,
            Without::Duplicates => (self.duplicate, self.replay) = (0.0, 0.0),
            Without::Damage => self.corrupt = 0.0,
            Without::Vagueness => self.vague = 0.0,
            Without::Cuts => (self.cut_every, self.clogs) = (0, false),
            Without::Flaps => self.flap_every = 0,
            Without::Holds => self.hold_every = 0,
            Without::Crashes => self.crash_every = 0,
            Without::CrashesAtActions => self.crash_at_action = 0.0,
            Without::Reopens => self.reopen_every = 0,
            Without::Pauses => self.pause_every = 0,
            Without::Stalls => self.disk_stall = 0.0,
            Without::DiskFailures => (self.disk_fails, self.full_every) = (0.0, 0),
            Without::Rot => self.rot_every = 0,
            Without::ApplyStalls => self.apply_stall = 0.0,
            Without::Drift => self.drift = 0,
            Without::Jumps => self.jump_every = 0,
            Without::EarlyTicks => self.early_tick_every = 0,
            Without::Snapshots => self.snapshot_every = 0,
            Without::Changes => self.operations[0] = 0,
            Without::Transfers => self.operations[1] = 0,
            Without::Meddling => self.operations[2] = 0,
            Without::Priorities => self.setup.priorities = false,
            Without::Sleep => {
                (self.idle_every, self.setup.config.quiesce_after) = (0, Duration::ZERO);
            }
            Without::StepDowns => self.step_down_every = 0,
            Without::UnequalMembers => {
                let ids = (1..=self.setup.nodes as u64).map(NodeId);
                self.setup.membership = Membership::of_voters(ids);
            }
            Without::QuorumOnly => self.quorum_only = false,
            Without::Batches => (self.largest_batch, self.longest_command) = (1, 1),
        }
        if self.operations == [0; 3] {
            self.operate_every = 0;
        }
    }

    /// How much faster or slower one clock goes. Where leases are put to the test, mostly as much as may be.
    pub(crate) fn draw_drift(&self, rng: &mut Rng) -> i64 {
        let most = self.drift as i64;
        let drift = rng.below(2 * self.drift + 1) as i64 - most;
        let (extreme, slow) = (rng.chance(0.7), rng.chance(0.4));
        match self.profile {
            Profile::Clock | Profile::Drift if extreme => {
                if slow {
                    -most
                } else {
                    most
                }
            }
            _ => drift,
        }
    }

    /// The shortest election timeout, in µs.
    pub(crate) fn election(&self) -> u64 {
        self.setup.config.election_timeout.as_micros() as u64
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
    // No driver here lets so many lie; but who is about to go is put to the test.
    config.max_actions = 64 + (config.seed % 512) as usize;
    config
}

/// Some learn only; or a change of the voters is under way, and both sets decide.
fn unequal_members(rng: &mut Rng, nodes: usize) -> Option<Membership> {
    let joint = rng.chance(0.5);
    let mut some = |least: usize| {
        let count = rng.between(least as u64, nodes as u64) as usize;
        rng.sample(nodes, count).into_iter().map(|slot| NodeId(slot as u64 + 1)).collect::<Vec<_>>()
    };
    let voters = some(nodes / 2 + 1);
    let outgoing = if joint { some(1) } else { Vec::new() };
    let ids = (1..=nodes as u64).map(NodeId);
    let learners = ids.filter(|id| !voters.contains(id) && !outgoing.contains(id)).collect();
    Membership::try_from(MembershipParts { voters, outgoing, learners, ..MembershipParts::default() }).ok()
}
