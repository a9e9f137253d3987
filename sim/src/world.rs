//! A run: everything that happens, in virtual time.

use quorate_core::{Input, Instant, Load, Membership, NodeId, Raft, SendId, Write};

use crate::{
    Options, Report,
    digest::Digest,
    disk::Disk,
    ghost::Ghost,
    network::{Network, Parcel},
    node::{Clock, Node, Process, Stage},
    plan::Plan,
    queue::Queue,
    rng::{Purpose, Rng},
    snapshots::Shipment,
    stats::{Count, Counts},
    trace::Trace,
    violation::{Broken, Verdict, Violation},
    watch::{Seen, Watch},
};

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
    /// A machine's state of some time ago is durable as a snapshot.
    SnapshotTaken {
        slot: usize,
        life: u64,
        index: u64,
        state: u64,
    },
    /// All of a snapshot has come; its sender hears of that, or not.
    Shipped {
        shipment: Box<Shipment>,
        tell: bool,
    },
    ShippingFailed {
        slot: usize,
        life: u64,
        id: SendId,
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
    TakeSnapshot,
    Operate,
    /// Somebody who was removed is turned off.
    Retire {
        slot: usize,
    },
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
    pub(crate) queue: Queue<Event>,
    /// Those that there are, or were: a slot is never used again.
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) ghost: Ghost,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    pub(crate) digest: Digest,
    pub(crate) watchers: Vec<Box<dyn Watch>>,
    /// Messages sent so far.
    pub(crate) sent: u64,
    pub(crate) disk_rng: Rng,
    pub(crate) driver_rng: Rng,
    pub(crate) fault_rng: Rng,
    pub(crate) client_rng: Rng,
    pub(crate) rare_rng: Rng,
    pub(crate) snapshot_rng: Rng,
    pub(crate) operator_rng: Rng,
    /// Faults go on.
    pub(crate) faulty: bool,
    /// Until then, clients only read.
    pub(crate) no_writes_before: u64,
    /// When the last message arrives that was sent while they did.
    pub(crate) last_straggler: u64,
    pub(crate) rest: crate::rest::Rest,
    pub(crate) done: bool,
}

impl World {
    /// Runs a seed to its end.
    pub(crate) fn run(
        options: &Options,
        trace: Trace,
        watchers: Vec<Box<dyn Watch>>,
    ) -> (Result<Report, Violation>, Trace) {
        let mut world = Self::new(options, trace, watchers);
        let verdict = world.go();
        let World { now, counts, digest, trace, .. } = world;
        let result = match verdict {
            Ok(()) => Ok(Report { seed: options.seed, simulated: now, counts, digest: digest.value() }),
            Err(Broken(invariant, what)) => Err(Violation { invariant, seed: options.seed, at: now, what }),
        };
        (result, trace)
    }

    fn new(options: &Options, trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Self {
        let plan = Plan::draw(options);
        let rng = |purpose| Rng::new(options.seed, purpose);
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            network: Network::new(rng(Purpose::Network), plan.slots),
            ghost: Ghost::new(plan.slots, plan.membership.clone()),
            counts: Counts::default(),
            trace,
            digest: Digest::default(),
            watchers,
            sent: 0,
            disk_rng: rng(Purpose::Disk),
            driver_rng: rng(Purpose::Driver),
            fault_rng: rng(Purpose::Faults),
            client_rng: rng(Purpose::Clients),
            rare_rng: rng(Purpose::Rare),
            snapshot_rng: rng(Purpose::Snapshots),
            operator_rng: rng(Purpose::Operator),
            faulty: true,
            no_writes_before: 0,
            last_straggler: 0,
            rest: crate::rest::Rest::default(),
            done: false,
            plan,
        };
        for _ in 0..world.plan.nodes {
            world.provision(world.plan.membership.clone());
        }
        world
    }

    /// A machine for another node, whose disk says that the cluster is this.
    pub(crate) fn provision(&mut self, membership: Membership) -> usize {
        let (drift, rng) = (self.plan.drift, &mut self.fault_rng);
        let drift = rng.below(2 * drift + 1) as i64 - drift as i64;
        // Far enough from zero to be set back.
        let clock = Clock { offset: 1 << 40 | rng.below(1_000_000_000), drift, jump: 0 };
        self.nodes.push(Node {
            disk: Disk::new(membership.clone()),
            clock,
            seen: Instant(0),
            ticks_from: 0,
            life: 0,
            process: None,
            paused: false,
            inbox: Default::default(),
            stage: Stage::Present,
        });
        let slot = self.nodes.len() - 1;
        self.ghost.provision(slot, membership);
        slot
    }

    fn go(&mut self) -> Verdict {
        self.trace.line(self.now, || format!("plan: {:?}", self.plan));
        for slot in 0..self.nodes.len() {
            self.see(&Seen::Provisioned { slot, membership: &self.plan.membership.clone() })?;
            self.start(slot)?;
        }
        self.plan_faults();
        self.push(self.plan.request_every, Event::Request);
        if self.plan.operate_every > 0 {
            self.push(self.plan.operate_every, Event::Operate);
        }
        if self.plan.snapshot_every > 0 {
            self.push(self.plan.snapshot_every, Event::TakeSnapshot);
        }
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
            Event::Deliver(Parcel { id, from, to, message }) => {
                // A cut link loses also what was under way.
                if self.network.is_cut(from, to) {
                    self.counts.bump(Count::Cut);
                    return self.see(&Seen::Lost { id, why: "the link is cut" });
                }
                self.counts.bump(Count::Delivered);
                let from = NodeId(from as u64 + 1);
                self.feed_message(to, id, Input::Receive { from, message })
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
            Event::SnapshotTaken { slot, life, index, state } => {
                self.snapshot_taken(slot, life, index, state)
            }
            Event::Shipped { shipment, tell } => self.shipped(*shipment, tell),
            Event::ShippingFailed { slot, life, id } => self.shipping_failed(slot, life, id),
            Event::TakeSnapshot => self.take_snapshot(),
            Event::Operate => self.operate(),
            Event::Retire { slot } => self.retire(slot),
            Event::Restart { slot } => {
                if self.nodes[slot].process.is_none() && self.nodes[slot].exists() {
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
        let config = self.plan.config_of(slot);
        let node = &mut self.nodes[slot];
        node.life += 1;
        node.paused = false;
        node.inbox.clear();
        let recovered = node.disk.recover(self.plan.durable_machine);
        let newest = node.disk.newest();
        let applied = recovered.applied.0;
        let now = node.clock.at(self.now);
        node.seen = now;
        self.trace.line(self.now, || format!("n{} starts: {recovered:?}", slot + 1));
        let raft = match Raft::new(config, recovered, now) {
            Ok(raft) => raft,
            Err(error) => return Err(Broken("D3", format!("node {} can't start: {error}", slot + 1))),
        };
        self.ghost.on_start(slot, &raft)?;
        self.ghost.on_durable_snapshot(slot, newest)?;
        node.process = Some(Process::new(raft, (applied, self.ghost.state_at(applied).unwrap_or_default())));
        if !self.watchers.is_empty() {
            let node = &self.nodes[slot];
            if let Some(process) = &node.process {
                for watcher in &mut self.watchers {
                    watcher.see(self.now, &Seen::Started { slot, raft: &process.raft })?;
                }
            }
        }
        self.plan_wake(slot);
        Ok(())
    }

    /// Tells whoever looks on.
    pub(crate) fn see(&mut self, seen: &Seen<'_>) -> Verdict {
        self.watchers.iter_mut().try_for_each(|watcher| watcher.see(self.now, seen))
    }

    /// A fault strikes, or is mended.
    pub(crate) fn tell(&mut self, slots: &[usize], what: impl Fn() -> String) -> Verdict {
        self.trace.line(self.now, &what);
        if self.watchers.is_empty() {
            return Ok(());
        }
        self.see(&Seen::Fault { slots, what: &what() })
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
        self.see(&Seen::Crashed { slot, kept, lost: lost.len() })
    }

    fn resume(&mut self, slot: usize, life: u64) -> Verdict {
        if self.nodes[slot].life != life || !self.nodes[slot].paused {
            return Ok(());
        }
        self.trace.line(self.now, || format!("n{} goes on", slot + 1));
        self.nodes[slot].paused = false;
        // A client may come just now, and be heard before all that lies waiting.
        if self.plan.config.lease_reads && self.rare_rng.chance(0.5) {
            self.ask_leased(slot)?;
        }
        // The inbox first, then the clock.
        while let Some((id, input)) = self.nodes[slot].inbox.pop_front() {
            self.step_message(slot, id, input)?;
            if self.nodes[slot].life != life {
                return Ok(());
            }
        }
        self.tick_if_due(slot)
    }

    /// Something comes in: it is taken up at once, unless the process is stopped.
    pub(crate) fn feed(&mut self, slot: usize, input: Input) -> Verdict {
        self.feed_message(slot, 0, input)
    }

    /// The same, with the number of the message that it is.
    pub(crate) fn feed_message(&mut self, slot: usize, id: u64, input: Input) -> Verdict {
        let node = &mut self.nodes[slot];
        if node.process.is_none() {
            return Ok(());
        }
        if node.paused {
            // A socket's buffer has an end; what the process's own threads have to say is not lost.
            if node.inbox.len() < 10_000 || !matches!(input, Input::Receive { .. }) {
                node.inbox.push_back((id, input));
            }
            return Ok(());
        }
        self.step_message(slot, id, input)
    }

    // ---- clocks ----

    pub(crate) fn plan_wake(&mut self, slot: usize) {
        let jitter = self.driver_rng.below(self.plan.tick_jitter + 1);
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return };
        let Some((deadline, _)) = process.raft.deadline() else { return };
        let due = node.clock.when(deadline).max(self.now).max(node.ticks_from) + jitter;
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
        if due && node.ticks_from <= self.now {
            self.counts.bump(Count::Ticks);
            return self.step(slot, Input::Tick);
        }
        self.plan_wake(slot);
        Ok(())
    }
}

/// What a clock shows, for a trace.
pub(crate) fn seconds(now: u64) -> f64 {
    Instant(now).0 as f64 / 1e6
}
