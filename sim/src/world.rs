//! A run: everything that happens, in virtual time.

use quorate_core::{Action, Input, Instant, Load, Membership, NodeId, Raft, Rejected, Tokens, Write};

use crate::{
    Options, Report,
    digest::Digest,
    ghost::Ghost,
    network::{Network, Parcel},
    node::{Clock, Disk, Node, Process},
    plan::Plan,
    queue::Queue,
    rng::{Purpose, Rng},
    stats::{Count, Counts},
    trace::Trace,
    violation::{Broken, Verdict, Violation, hold},
};

/// A sound run of a minute takes a few ten thousand steps. Messages that beget more messages never end.
const MOST_STEPS: u64 = 5_000_000;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver(Parcel),
    /// A process looks at its clock.
    Wake {
        slot: usize,
        life: u64,
    },
    /// A disk is done with what it was at.
    Synced {
        slot: usize,
        life: u64,
        number: u64,
    },
    /// A state machine is done with the oldest entries that it was handed.
    Applied {
        slot: usize,
        life: u64,
    },
    Loaded {
        slot: usize,
        life: u64,
        load: Load,
    },
    Restart {
        slot: usize,
    },
    Resume {
        slot: usize,
        life: u64,
    },
    Fault(crate::faults::Fault),
    Request,
    /// The faults end.
    Heal,
    /// Has the cluster come to rest?
    Rest,
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    queue: Queue<Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) ghost: Ghost,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    digest: Digest,
    disk_rng: Rng,
    driver_rng: Rng,
    pub(crate) fault_rng: Rng,
    pub(crate) client_rng: Rng,
    /// Faults go on.
    pub(crate) faulty: bool,
    pub(crate) rest: crate::rest::Rest,
    pub(crate) done: bool,
}

impl World {
    /// Runs a seed to its end.
    pub(crate) fn run(options: &Options, trace: Trace) -> (Result<Report, Violation>, Trace) {
        let mut world = Self::new(options, trace);
        let verdict = world.go();
        let World { now, counts, digest, trace, .. } = world;
        let result = match verdict {
            Ok(()) => Ok(Report { seed: options.seed, simulated: now, counts, digest: digest.value() }),
            Err(Broken(invariant, what)) => Err(Violation { invariant, seed: options.seed, at: now, what }),
        };
        (result, trace)
    }

    fn new(options: &Options, trace: Trace) -> Self {
        let plan = Plan::draw(options);
        let rng = |purpose| Rng::new(options.seed, purpose);
        let mut fault_rng = rng(Purpose::Faults);
        let nodes = (0..plan.nodes)
            .map(|_| {
                let drift = fault_rng.below(2 * plan.drift + 1) as i64 - plan.drift as i64;
                let clock = Clock { offset: fault_rng.below(1_000_000_000), drift };
                let disk = Disk::default();
                Node { disk, clock, life: 0, process: None, paused: false, inbox: Default::default() }
            })
            .collect();
        Self {
            now: 0,
            queue: Queue::new(),
            nodes,
            network: Network::new(rng(Purpose::Network), plan.nodes),
            ghost: Ghost::new(plan.nodes),
            counts: Counts::default(),
            trace,
            digest: Digest::default(),
            disk_rng: rng(Purpose::Disk),
            driver_rng: rng(Purpose::Driver),
            fault_rng,
            client_rng: rng(Purpose::Clients),
            faulty: true,
            rest: crate::rest::Rest::default(),
            done: false,
            plan,
        }
    }

    fn go(&mut self) -> Verdict {
        self.trace.line(self.now, || format!("plan: {:?}", self.plan));
        for slot in 0..self.nodes.len() {
            self.start(slot)?;
        }
        self.plan_faults();
        self.push(self.plan.request_every, Event::Request);
        self.push(self.plan.duration, Event::Heal);
        while !self.done {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            self.happen(event)?;
        }
        Ok(())
    }

    /// `event` is to happen `delay` µs from now.
    pub(crate) fn push(&mut self, delay: u64, event: Event) {
        self.queue.push(self.now + delay, event);
    }

    fn happen(&mut self, event: Event) -> Verdict {
        match event {
            Event::Deliver(Parcel { from, to, message }) => {
                // A cut link loses also what was under way.
                if self.network.is_cut(from, to) {
                    self.counts.bump(Count::Cut);
                    return Ok(());
                }
                self.counts.bump(Count::Delivered);
                let from = NodeId(from as u64 + 1);
                self.feed(to, Input::Receive { from, message })
            }
            Event::Wake { slot, life } => self.wake(slot, life),
            Event::Synced { slot, life, number } => self.synced(slot, life, number),
            Event::Applied { slot, life } => self.applied(slot, life),
            Event::Loaded { slot, life, load } => {
                if self.nodes[slot].life != life {
                    return Ok(());
                }
                let result = self.nodes[slot].disk.load(&load);
                self.feed(slot, Input::Loaded { id: load.id, result })
            }
            Event::Restart { slot } => {
                if self.nodes[slot].process.is_none() {
                    self.start(slot)
                } else {
                    Ok(())
                }
            }
            Event::Resume { slot, life } => self.resume(slot, life),
            Event::Fault(fault) => self.strike(fault),
            Event::Request => self.request(),
            Event::Heal => self.heal(),
            Event::Rest => self.check_rest(),
        }
    }

    // ---- processes ----

    pub(crate) fn start(&mut self, slot: usize) -> Verdict {
        let membership = Membership::of_voters((1..=self.nodes.len() as u64).map(NodeId));
        let config = self.plan.config_of(slot);
        let node = &mut self.nodes[slot];
        node.life += 1;
        node.paused = false;
        node.inbox.clear();
        let recovered = node.disk.recover(membership);
        let now = node.clock.at(self.now);
        self.trace.line(self.now, || format!("n{} starts: {recovered:?}", slot + 1));
        let raft = match Raft::new(config, recovered, now) {
            Ok(raft) => raft,
            Err(error) => return Err(Broken("D3", format!("node {} can't start: {error}", slot + 1))),
        };
        self.ghost.on_start(slot, &raft)?;
        node.process = Some(Process::new(raft));
        self.plan_wake(slot);
        Ok(())
    }

    /// The process is gone; what its disk had not done is done in part: any number of the oldest writes.
    pub(crate) fn crash(&mut self, slot: usize) -> Verdict {
        let Some(process) = self.nodes[slot].process.take() else { return Ok(()) };
        self.nodes[slot].life += 1;
        self.counts.bump(Count::Crashes);
        let mut writes: Vec<Write> = process.syncing.into_iter().chain(process.queued).collect();
        let kept = self.disk_rng.index(writes.len() + 1);
        let lost = writes.split_off(kept);
        self.trace
            .line(self.now, || format!("n{} crashes: {kept} writes kept, {} lost", slot + 1, lost.len()));
        self.counts[Count::KeptWrites] += kept as u64;
        self.counts[Count::LostWrites] += lost.len() as u64;
        for write in &writes {
            self.make_durable(slot, write)?;
        }
        Ok(())
    }

    fn make_durable(&mut self, slot: usize, write: &Write) -> Verdict {
        self.nodes[slot].disk.apply(write);
        self.ghost.on_durable(slot, write)
    }

    fn resume(&mut self, slot: usize, life: u64) -> Verdict {
        if self.nodes[slot].life != life || !self.nodes[slot].paused {
            return Ok(());
        }
        self.trace.line(self.now, || format!("n{} goes on", slot + 1));
        self.nodes[slot].paused = false;
        // The inbox first, then the clock.
        while let Some(input) = self.nodes[slot].inbox.pop_front() {
            self.step(slot, input)?;
            if self.nodes[slot].life != life {
                return Ok(());
            }
        }
        self.tick_if_due(slot)
    }

    /// Something comes in: it is taken up at once, unless the process is stopped.
    pub(crate) fn feed(&mut self, slot: usize, input: Input) -> Verdict {
        let node = &mut self.nodes[slot];
        if node.process.is_none() {
            return Ok(());
        }
        if node.paused {
            if node.inbox.len() < 10_000 {
                node.inbox.push_back(input);
            }
            return Ok(());
        }
        self.step(slot, input)
    }

    // ---- clocks ----

    fn plan_wake(&mut self, slot: usize) {
        let jitter = self.driver_rng.below(self.plan.tick_jitter + 1);
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return };
        let Some((deadline, _)) = process.raft.deadline() else { return };
        let due = node.clock.when(deadline).max(self.now) + jitter;
        if due < process.wake_at {
            process.wake_at = due;
            let life = node.life;
            self.queue.push(due, Event::Wake { slot, life });
        }
    }

    fn wake(&mut self, slot: usize, life: u64) -> Verdict {
        let node = &mut self.nodes[slot];
        let now = self.now;
        let Some(process) = &mut node.process else { return Ok(()) };
        if node.life != life || process.wake_at != now {
            return Ok(());
        }
        process.wake_at = u64::MAX;
        if node.paused {
            return Ok(());
        }
        self.tick_if_due(slot)
    }

    fn tick_if_due(&mut self, slot: usize) -> Verdict {
        let node = &self.nodes[slot];
        let Some(process) = &node.process else { return Ok(()) };
        let due = process.raft.deadline().is_some_and(|(at, _)| at <= node.clock.at(self.now));
        if due {
            self.counts.bump(Count::Ticks);
            return self.step(slot, Input::Tick);
        }
        self.plan_wake(slot);
        Ok(())
    }

    // ---- the core ----

    /// One step of one core, with all its checks, and then what it wants done.
    pub(crate) fn step(&mut self, slot: usize, input: Input) -> Verdict {
        let node = &mut self.nodes[slot];
        let life = node.life;
        let now = node.clock.at(self.now);
        let Some(process) = &mut node.process else { return Ok(()) };
        self.counts.bump(Count::Steps);
        hold!(self.counts[Count::Steps] <= MOST_STEPS, "liveness", "a storm: {MOST_STEPS} steps, and no end");
        self.digest.add(&(self.now, slot, &input));
        self.trace.line(self.now, || format!("n{} <- {input:?}", slot + 1));
        let taken = taken_tokens(&input);
        let from_peer = matches!(input, Input::Receive { .. });
        let raft = &mut process.raft;
        let result = raft.step(now, input);
        if let Err(rejected) = result {
            self.trace.line(self.now, || format!("n{} refuses: {rejected}", slot + 1));
            self.digest.add(&rejected);
            let wrongly =
                matches!(rejected, Rejected::BadLoad | Rejected::StaleReceipt | Rejected::BadApplied { .. });
            hold!(!wrongly, "contract", "node {} refuses what its own driver says: {rejected}", slot + 1);
            let impossible = matches!(rejected, Rejected::Malformed(_) | Rejected::Unexpected { .. });
            hold!(
                !(from_peer && impossible),
                "refused",
                "node {} refuses what a correct node has sent: {rejected}",
                slot + 1
            );
        }
        if let Some(tokens) = taken {
            self.ghost.on_taken(tokens, result.is_ok(), &mut self.counts);
        }
        let actions: Vec<Action> = raft.drain().collect();
        for action in &actions {
            self.digest.add(action);
            self.trace.line(self.now, || format!("n{} -> {action:?}", slot + 1));
        }
        // What it wrote, then what it is now, then what it says and hands out: each is held against the one before.
        for write in actions.iter().filter_map(as_write) {
            self.ghost.on_write(slot, raft, write, &mut self.counts)?;
        }
        self.ghost.after_step(slot, raft, &mut self.counts)?;
        for action in &actions {
            self.ghost.on_action(slot, life, raft, action, &mut self.counts)?;
        }
        if self.counts[Count::Steps].is_multiple_of(32) {
            check_bounds(raft, &self.plan)?;
        }
        self.carry_out(slot, actions)
    }

    /// Does what a core wants done; now and then, crashes in the middle of it.
    fn carry_out(&mut self, slot: usize, mut actions: Vec<Action>) -> Verdict {
        let crash = self.faulty && !actions.is_empty() && self.driver_rng.chance(self.plan.crash_at_action);
        if crash {
            shuffle_across_lanes(&mut actions, &mut self.driver_rng);
            let done = self.driver_rng.index(actions.len() + 1);
            actions.truncate(done);
        }
        for action in actions {
            self.carry_out_one(slot, action)?;
        }
        if crash {
            self.counts.bump(Count::CrashesAtAction);
            self.crash(slot)?;
            self.plan_restart(slot);
            return Ok(());
        }
        self.plan_wake(slot);
        Ok(())
    }

    fn carry_out_one(&mut self, slot: usize, action: Action) -> Verdict {
        let life = self.nodes[slot].life;
        match action {
            Action::Send { to, message } => {
                let parcel = Parcel { from: slot, to: to.0 as usize - 1, message };
                let Self { network, queue, plan, counts, now, .. } = self;
                network.send(*now, parcel, plan, counts, |at, parcel| queue.push(at, Event::Deliver(parcel)))
            }
            Action::Write(write) => {
                if let Some(process) = &mut self.nodes[slot].process {
                    process.queued.push_back(write);
                }
                self.begin_sync(slot);
                Ok(())
            }
            Action::Apply(apply) => {
                if let Some(process) = &mut self.nodes[slot].process {
                    process.applies.push_back(apply);
                }
                self.begin_apply(slot);
                Ok(())
            }
            Action::Load(load) => {
                let delay = self.disk_rng.exponential(self.plan.disk_mean);
                self.push(delay, Event::Loaded { slot, life, load });
                Ok(())
            }
            Action::Restore(_) | Action::SendSnapshot(_) => {
                Err(Broken("contract", "nothing is compacted".into()))
            }
            Action::Resolve { .. } | Action::Event(_) => Ok(()),
        }
    }

    // ---- the disk ----

    /// The disk takes up what is queued: one write, or all of them in one commit.
    fn begin_sync(&mut self, slot: usize) {
        let group = self.disk_rng.chance(self.plan.group_commit);
        let stall = self.faulty && self.disk_rng.chance(self.plan.disk_stall);
        let mut delay = 20 + self.disk_rng.exponential(self.plan.disk_mean);
        let Some(process) = &mut self.nodes[slot].process else { return };
        if !process.syncing.is_empty() || process.queued.is_empty() {
            return;
        }
        let count = if group { process.queued.len() } else { 1 };
        process.syncing = process.queued.drain(..count).collect();
        if stall {
            self.counts.bump(Count::Stalls);
            delay += self.disk_rng.exponential(3_000_000);
        }
        process.syncs += 1;
        let number = process.syncs;
        let life = self.nodes[slot].life;
        self.push(delay, Event::Synced { slot, life, number });
    }

    /// Whatever its disk is stalled at is done soon.
    pub(crate) fn end_stall(&mut self, slot: usize) {
        let life = self.nodes[slot].life;
        if let Some(number) = self.nodes[slot].process.as_ref().map(|process| process.syncs) {
            self.push(100, Event::Synced { slot, life, number });
        }
    }

    fn synced(&mut self, slot: usize, life: u64, number: u64) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        if node.life != life || process.syncs != number || process.syncing.is_empty() {
            return Ok(());
        }
        if self.faulty && self.disk_rng.chance(self.plan.disk_fails) {
            return self.disk_fails(slot);
        }
        let writes = std::mem::take(&mut process.syncing);
        let mut merged = None;
        for write in writes {
            self.make_durable(slot, &write)?;
            let receipt = write.into_receipt();
            merged = Some(match merged {
                None => receipt,
                Some(before) => match quorate_core::Receipt::merge(before, receipt) {
                    Ok(merged) => merged,
                    Err(_) => {
                        return Err(Broken("contract", "receipts of consecutive writes don't merge".into()));
                    }
                },
            });
        }
        self.begin_sync(slot);
        match merged {
            Some(receipt) => self.feed(slot, Input::Persisted(receipt)),
            None => Ok(()),
        }
    }

    /// A commit has failed. Some of it may be durable; the process is told, and started again some time later.
    fn disk_fails(&mut self, slot: usize) -> Verdict {
        self.counts.bump(Count::DiskFailures);
        self.trace.line(self.now, || format!("n{}: its disk fails", slot + 1));
        self.ghost.on_disk_failed(slot);
        self.nodes[slot].paused = false;
        self.step(slot, Input::StorageFailed)?;
        let life = self.nodes[slot].life;
        self.ghost.all_resolved(|other| (other == slot).then_some(life))?;
        // It must stay silent, whatever comes.
        let delay = self.disk_rng.exponential(300_000);
        self.push(
            delay,
            Event::Fault(crate::faults::Fault::AfterDiskFailure { slot, life: self.nodes[slot].life }),
        );
        Ok(())
    }

    // ---- the state machine ----

    fn begin_apply(&mut self, slot: usize) {
        let delay = self.driver_rng.exponential(self.plan.apply_mean);
        let Some(process) = &mut self.nodes[slot].process else { return };
        if process.applying || process.applies.is_empty() {
            return;
        }
        process.applying = true;
        let life = self.nodes[slot].life;
        self.push(delay, Event::Applied { slot, life });
    }

    fn applied(&mut self, slot: usize, life: u64) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        if node.life != life {
            return Ok(());
        }
        process.applying = false;
        let Some(apply) = process.applies.pop_front() else { return Ok(()) };
        if self.plan.durable_machine {
            node.disk.applied = apply.last().0;
        }
        self.begin_apply(slot);
        self.feed(slot, Input::Applied { up_to: apply.last() })
    }
}

const fn as_write(action: &Action) -> Option<&Write> {
    match action {
        Action::Write(write) => Some(write),
        Action::Send { .. }
        | Action::Apply(_)
        | Action::Restore(_)
        | Action::SendSnapshot(_)
        | Action::Load(_)
        | Action::Resolve { .. }
        | Action::Event(_) => None,
    }
}

/// The tokens that an input asks to be taken.
const fn taken_tokens(input: &Input) -> Option<Tokens> {
    match input {
        Input::Propose(proposal) => Some(proposal.tokens()),
        Input::Read { token, .. }
        | Input::ChangeMembership { token, .. }
        | Input::TransferLeadership { token, .. } => Some(Tokens::one(*token)),
        Input::Tick
        | Input::AbortTransfer
        | Input::Campaign
        | Input::ForgetLeader
        | Input::Compact { .. }
        | Input::SnapshotSent { .. }
        | Input::Unreachable { .. }
        | Input::Receive { .. }
        | Input::Persisted(_)
        | Input::Loaded { .. }
        | Input::Applied { .. }
        | Input::StorageFailed => None,
    }
}

/// Everything stays within its bound (B1).
fn check_bounds(raft: &Raft, plan: &Plan) -> Verdict {
    let (status, config) = (raft.status(), &plan.config);
    let n = status.id;
    hold!(
        status.uncommitted_bytes <= config.max_uncommitted_bytes as u64,
        "B1",
        "node {n} holds {} uncommitted bytes",
        status.uncommitted_bytes
    );
    // A single append may be bigger than the bound.
    let unpersisted =
        config.max_unpersisted_bytes.max(config.max_uncommitted_bytes) + config.max_append_bytes;
    hold!(
        status.unpersisted_bytes <= unpersisted as u64 + 4096,
        "B1",
        "node {n} holds {} unpersisted bytes",
        status.unpersisted_bytes
    );
    hold!(status.parked <= 257, "B1", "node {n} has {} messages parked", status.parked);
    for peer in &status.peers {
        let messages = peer.inflight_messages <= config.max_inflight_messages as u64;
        hold!(messages, "B1", "node {n} has {} messages under way to {}", peer.inflight_messages, peer.id);
        let bytes = config.max_inflight_bytes + config.max_append_bytes + 4096;
        hold!(peer.inflight_bytes <= bytes as u64, "B1", "node {n}: {} bytes under way", peer.inflight_bytes);
    }
    Ok(())
}

/// Any order that the contract allows: writes keep theirs, applies keep theirs, and so do messages to one peer.
fn shuffle_across_lanes(actions: &mut Vec<Action>, rng: &mut Rng) {
    let lane = |action: &Action| match action {
        Action::Write(_) => 0,
        Action::Apply(_) | Action::Restore(_) => 1,
        Action::Send { to, .. } => 2 + to.0,
        Action::SendSnapshot(_) | Action::Load(_) | Action::Resolve { .. } | Action::Event(_) => u64::MAX,
    };
    let mut lanes: Vec<u64> = actions.iter().map(lane).collect();
    let mut waiting: Vec<(u64, Option<Action>)> =
        actions.drain(..).map(|action| (lane(&action), Some(action))).collect();
    rng.shuffle(&mut lanes);
    for wanted in lanes {
        let next = waiting.iter_mut().find(|(lane, action)| *lane == wanted && action.is_some());
        actions.extend(next.and_then(|(_, action)| action.take()));
    }
}

/// What a clock shows, for a trace.
pub(crate) fn seconds(now: u64) -> f64 {
    Instant(now).0 as f64 / 1e6
}
