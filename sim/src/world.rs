//! A run: what happens when, in virtual time, drawn from a seed. What is done to the cluster goes through [`Lab::perform`].

use std::collections::VecDeque;

use quorate_core::{Instant, Membership, NodeId, Raft, RoleKind};

use crate::{
    Options, Report,
    cast::Cast,
    clients::Clients,
    faults::Fault,
    lab::{Lab, Parcel},
    network::Network,
    node::Work,
    op::{Kind, Op, What},
    plan::Plan,
    queue::Queue,
    rest::Rest,
    rng::{Purpose, Rng},
    stats::Count,
    touch::Touch,
    trace::Trace,
    violation::{Broken, Verdict, Violation},
    watch::{Seen, Watch},
};

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver(Parcel),
    /// Somebody asks a node for something.
    Ask {
        slot: usize,
        life: u64,
        what: What,
    },
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
    /// A state machine is done with the oldest that it was handed.
    Applied {
        slot: usize,
        life: u64,
    },
    Loaded {
        slot: usize,
        life: u64,
        load: quorate_core::LoadId,
    },
    /// A machine's state of some time ago is durable as a snapshot.
    SnapshotTaken {
        slot: usize,
        life: u64,
    },
    /// All of a snapshot has come; its sender hears of that, or not.
    Shipped {
        from: usize,
        to: usize,
        nth: u32,
        tell: bool,
    },
    /// Its sender hears what became of it.
    ShipEnded {
        slot: usize,
        to: usize,
        nth: u32,
        arrived: bool,
    },
    Restart {
        slot: usize,
    },
    Resume {
        slot: usize,
        life: u64,
    },
    Fault(Fault),
    /// A client asks a node for something.
    Called {
        slot: usize,
        life: u64,
        what: What,
        ops: Vec<u32>,
    },
    /// A client has waited long enough.
    AskAgain {
        op: u32,
    },
    /// A client asks once more for what was refused.
    Repeat {
        op: u32,
    },
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
    /// Transports look at who is there.
    Touch,
}

/// Where a node is in its existence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Present,
    /// It is no member any more, and will be gone some time.
    Leaving,
    /// It is no member any more, but nobody turns it off.
    Lingering,
    Gone,
}

/// What is around a node: its clock, the pace of its disk, and whether its process runs.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) clock: Clock,
    /// Until then its timers don't fire, though it does everything else.
    pub(crate) ticks_from: u64,
    /// A stopped process (as by SIGSTOP): what comes waits.
    pub(crate) paused: bool,
    pub(crate) inbox: VecDeque<Event>,
    pub(crate) stage: Stage,
    /// How many writes the disk is at, and how many times it has begun.
    pub(crate) syncing: usize,
    pub(crate) syncs: u64,
    /// The state machine is at something.
    pub(crate) applying: bool,
    /// When the process will look at its clock next, in true time.
    pub(crate) wake_at: u64,
    /// Until then its disk is full.
    pub(crate) full_until: u64,
    /// Until then its disk is done with nothing.
    pub(crate) stalled_until: u64,
}

impl Host {
    /// Is it there, running or not?
    pub(crate) const fn exists(&self) -> bool {
        matches!(self.stage, Stage::Present | Stage::Leaving | Stage::Lingering)
    }
}

/// A clock that began at another moment, and goes a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: u64,
    /// Parts per million; negative for slow.
    pub(crate) drift: i64,
    /// How far it was set forward, or back, since it began.
    pub(crate) jump: i64,
}

impl Clock {
    /// What it shows at `now` of true time.
    pub(crate) fn at(self, now: u64) -> Instant {
        let rate = (1_000_000 + self.drift) as u64;
        Instant(self.base() + (u128::from(now) * u128::from(rate) / 1_000_000) as u64)
    }

    fn base(self) -> u64 {
        self.offset.saturating_add_signed(self.jump)
    }

    /// The first moment of true time at which it shows `instant` or later.
    pub(crate) fn when(self, instant: Instant) -> u64 {
        let rate = (1_000_000 + self.drift) as u64;
        let shown = instant.0.saturating_sub(self.base());
        (u128::from(shown) * 1_000_000).div_ceil(u128::from(rate)) as u64
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) lab: Lab,
    pub(crate) now: u64,
    pub(crate) queue: Queue<Event>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) disk_rng: Rng,
    pub(crate) driver_rng: Rng,
    pub(crate) fault_rng: Rng,
    pub(crate) client_rng: Rng,
    pub(crate) rare_rng: Rng,
    pub(crate) snapshot_rng: Rng,
    pub(crate) operator_rng: Rng,
    pub(crate) sleep_rng: Rng,
    pub(crate) touch: Touch,
    /// Faults go on.
    pub(crate) faulty: bool,
    /// Until then, clients only read.
    pub(crate) no_writes_before: u64,
    /// When the last message arrives that was sent while they did.
    pub(crate) last_straggler: u64,
    pub(crate) rest: Rest,
    pub(crate) done: bool,
}

impl World {
    /// Runs a seed to its end.
    pub(crate) fn run(
        options: &Options,
        cast: &Cast,
        trace: Trace,
        watchers: Vec<Box<dyn Watch>>,
    ) -> (Result<Report, Violation>, Trace) {
        let mut world = Self::new(options, cast, trace, watchers);
        let verdict = world.go();
        let World { now, lab, .. } = world;
        let Lab { counts, digest, trace, .. } = lab;
        let result = match verdict {
            Ok(()) => Ok(Report { seed: options.seed, simulated: now, counts, digest: digest.value() }),
            Err(Broken(invariant, what)) => Err(Violation { invariant, seed: options.seed, at: now, what }),
        };
        (result, trace)
    }

    pub(crate) fn new(options: &Options, cast: &Cast, trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Self {
        let (plan, service) = Plan::draw(options, cast);
        let rng = |purpose| Rng::new(options.seed, purpose);
        let mut client_rng = rng(Purpose::Clients);
        Self {
            now: 0,
            lab: Lab::new(plan.setup.clone(), service.clone(), trace, watchers),
            clients: Clients::new(service, plan.setup.sessions, cast, &mut client_rng),
            queue: Queue::new(),
            hosts: Vec::new(),
            network: Network::new(rng(Purpose::Network), plan.setup.slots),
            disk_rng: rng(Purpose::Disk),
            driver_rng: rng(Purpose::Driver),
            fault_rng: rng(Purpose::Faults),
            client_rng,
            rare_rng: rng(Purpose::Rare),
            snapshot_rng: rng(Purpose::Snapshots),
            operator_rng: rng(Purpose::Operator),
            sleep_rng: rng(Purpose::Sleep),
            touch: Touch::default(),
            faulty: true,
            no_writes_before: 0,
            last_straggler: 0,
            rest: Rest::default(),
            done: false,
            plan,
        }
    }

    /// Everything, from the beginning to the end.
    pub(crate) fn go(&mut self) -> Verdict {
        self.lab.trace.line(self.now, || format!("plan: {:?}", self.plan));
        for _ in 0..self.plan.setup.nodes {
            self.provision(self.plan.setup.membership.clone())?;
        }
        for slot in 0..self.hosts.len() {
            self.start(slot)?;
        }
        self.plan_faults();
        self.plan_sleep();
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
        self.lab.finish()?;
        let settled = self.leader().and_then(|slot| self.lab.nodes[slot].machine.as_deref());
        self.clients.judge(settled)
    }

    /// A machine for another node, whose disk says that the cluster is this.
    pub(crate) fn provision(&mut self, membership: Membership) -> Result<usize, Broken> {
        let drift = self.plan.draw_drift(&mut self.fault_rng);
        let rng = &mut self.fault_rng;
        self.hosts.push(Host {
            // Far enough from zero to be set back.
            clock: Clock { offset: 1 << 40 | rng.below(1_000_000_000), drift, jump: 0 },
            ticks_from: 0,
            paused: false,
            inbox: VecDeque::new(),
            stage: Stage::Present,
            syncing: 0,
            syncs: 0,
            applying: false,
            wake_at: u64::MAX,
            full_until: 0,
            stalled_until: 0,
        });
        self.lab.perform(self.now, Op::Provision { membership })?;
        Ok(self.hosts.len() - 1)
    }

    /// `event` is to happen `delay` µs from now.
    pub(crate) fn push(&mut self, delay: u64, event: Event) {
        self.queue.push(self.now + delay, event);
    }

    pub(crate) fn happen(&mut self, event: Event) -> Verdict {
        if let Some(slot) = self.whom(&event)
            && self.hosts[slot].paused
        {
            // A socket's buffer has an end; what the process's own threads have to say is not lost.
            let inbox = &mut self.hosts[slot].inbox;
            if inbox.len() < 10_000 || !matches!(event, Event::Deliver(_)) {
                inbox.push_back(event);
            }
            return Ok(());
        }
        match event {
            Event::Deliver(parcel) => self.deliver(parcel),
            Event::Ask { slot, life, what } => {
                if self.life(slot) == life {
                    self.act(slot, what)
                } else {
                    Ok(())
                }
            }
            Event::Called { slot, life, what, ops } => {
                if self.life(slot) != life || !self.is_running(slot) {
                    return Ok(());
                }
                let now = self.hosts[slot].clock.at(self.now).0;
                self.lab.perform(self.now, Op::Input { slot, now, what })?;
                let (asked, refused) = (self.lab.outcome.asked, self.lab.outcome.refused.is_some());
                self.note_tokens(asked, refused, &ops);
                self.follow_up(slot)
            }
            Event::AskAgain { op } => self.ask_again(op),
            Event::Repeat { op } => self.repeat(op),
            Event::Wake { slot, life } => self.wake(slot, life),
            Event::Synced { slot, life, number } => self.synced(slot, life, number),
            Event::Applied { slot, life } => self.applied(slot, life),
            Event::Loaded { slot, life, load } => {
                let loads = self.lab.nodes[slot].process.as_ref().map(|process| &process.loads);
                let nth = loads.and_then(|loads| loads.iter().position(|open| open.id == load));
                match nth {
                    Some(nth) if self.life(slot) == life => self.act(slot, What::Load { nth }),
                    Some(_) | None => Ok(()),
                }
            }
            Event::SnapshotTaken { slot, life } => self.snapshot_taken(slot, life),
            Event::Shipped { from, to, nth, tell } => self.shipped(from, to, nth, tell),
            Event::ShipEnded { slot, to, nth, arrived } => {
                let ago = self.lab.ago(slot, to, Kind::InstallSnapshot, nth);
                self.act(slot, What::Shipped { to, ago, arrived })
            }
            Event::TakeSnapshot => self.take_snapshot(),
            Event::Operate => self.operate(),
            Event::Retire { slot } => self.retire(slot),
            Event::Restart { slot } => {
                if self.lab.nodes[slot].process.is_none() && self.hosts[slot].exists() {
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
            Event::Touch => self.look_at_touch(),
        }
    }

    /// Whose process must run for it.
    const fn whom(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Deliver(parcel) => Some(parcel.to),
            Event::Shipped { to, .. } => Some(*to),
            Event::Ask { slot, .. }
            | Event::Called { slot, .. }
            | Event::Synced { slot, .. }
            | Event::Applied { slot, .. }
            | Event::Loaded { slot, .. }
            | Event::SnapshotTaken { slot, .. }
            | Event::ShipEnded { slot, .. } => Some(*slot),
            Event::Wake { .. }
            | Event::Restart { .. }
            | Event::Resume { .. }
            | Event::Fault(_)
            | Event::AskAgain { .. }
            | Event::Repeat { .. }
            | Event::Request
            | Event::TakeSnapshot
            | Event::Operate
            | Event::Retire { .. }
            | Event::Heal
            | Event::Rest
            | Event::Touch => None,
        }
    }

    fn deliver(&mut self, parcel: Parcel) -> Verdict {
        let Parcel { id, from, to, nth, vague, .. } = parcel;
        // A cut link loses also what was under way.
        if self.network.is_cut(from, to) {
            self.lab.counts.bump(Count::Cut);
            return self.lab.see(&Seen::Lost { id, why: "the link is cut" });
        }
        if self.lab.nodes[to].process.is_none() {
            return self.lab.see(&Seen::Lost { id, why: "nobody is there" });
        }
        self.lab.counts.bump(Count::Delivered);
        let kind = Kind::of(&parcel.message.body);
        let ago = self.lab.ago(from, to, kind, nth);
        self.act_on(to, What::Deliver { from, kind, ago, vague }, Some(parcel))
    }

    // ---- looks ----

    pub(crate) fn life(&self, slot: usize) -> u64 {
        self.lab.nodes[slot].life
    }

    pub(crate) fn raft(&self, slot: usize) -> Option<&Raft> {
        self.lab.nodes[slot].raft()
    }

    pub(crate) fn is_running(&self, slot: usize) -> bool {
        self.lab.nodes[slot].process.is_some()
    }

    pub(crate) fn leads(&self, slot: usize) -> bool {
        self.raft(slot).is_some_and(|raft| raft.role() == RoleKind::Leader)
    }

    /// Whoever takes itself for the leader.
    pub(crate) fn leaders(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|slot| self.leads(*slot)).collect()
    }

    /// Whoever leads the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let term = |slot: &usize| self.raft(*slot).map(Raft::term);
        self.leaders().into_iter().max_by_key(term)
    }

    // ---- processes ----

    pub(crate) fn start(&mut self, slot: usize) -> Verdict {
        let now = self.hosts[slot].clock.at(self.now).0;
        let host = &mut self.hosts[slot];
        if host.full_until > self.now && self.faulty {
            // Not even the incarnation can be written: it tries again.
            self.push(500_000, Event::Restart { slot });
            return Ok(());
        }
        host.began();
        self.lab.perform(self.now, Op::Start { slot, now })?;
        if !self.is_running(slot) {
            // Its disk is damaged: it never comes back under its id.
            self.hosts[slot].stage = Stage::Gone;
            return Ok(());
        }
        self.plan_wake(slot);
        Ok(())
    }

    /// The process is gone; what its disk had not done is done in part.
    pub(crate) fn crash(&mut self, slot: usize) -> Verdict {
        let Some(process) = &self.lab.nodes[slot].process else { return Ok(()) };
        // Any of the writes may have reached the disk, whole or in part; the store takes them in order up to the first that did
        // not, so what counts is how many of the oldest did.
        let survives = self.disk_rng.pick(&[0.0, 0.5, 0.9, 1.0]);
        let waiting = process.writes.len();
        let mut whole = Vec::new();
        whole.resize_with(waiting, || self.disk_rng.chance(survives));
        let kept = whole.iter().take_while(|whole| **whole).count();
        if whole[kept..].contains(&true) {
            self.lab.counts.bump(Count::TornWrites);
        }
        self.crash_keeping(slot, kept)
    }

    pub(crate) fn crash_keeping(&mut self, slot: usize, kept: usize) -> Verdict {
        self.hosts[slot].paused = false;
        self.hosts[slot].inbox.clear();
        self.lab.perform(self.now, Op::Crash { slot, kept })?;
        self.lose_what_was_durable(slot)
    }

    fn resume(&mut self, slot: usize, life: u64) -> Verdict {
        if self.life(slot) != life || !self.hosts[slot].paused {
            return Ok(());
        }
        self.lab.tell(&[slot], || format!("n{} goes on", slot + 1))?;
        self.hosts[slot].paused = false;
        // A client may come just now, and be heard before all that lies waiting.
        if self.plan.setup.config.lease_reads && self.rare_rng.chance(0.5) {
            self.act(slot, What::Read { kind: quorate_core::ReadKind::Lease, query: None })?;
        }
        // The inbox first, then the clock.
        while let Some(event) = self.hosts[slot].inbox.pop_front() {
            self.happen(event)?;
            if self.life(slot) != life || self.hosts[slot].paused {
                return Ok(());
            }
        }
        self.tick_if_due(slot)
    }

    // ---- clocks ----

    pub(crate) fn plan_wake(&mut self, slot: usize) {
        let jitter = self.driver_rng.below(self.plan.tick_jitter + 1);
        let Some((deadline, _)) = self.lab.nodes[slot].raft().and_then(Raft::deadline) else { return };
        let life = self.life(slot);
        let host = &mut self.hosts[slot];
        let due = host.clock.when(deadline).max(self.now).max(host.ticks_from) + jitter;
        if due < host.wake_at {
            host.wake_at = due;
            self.queue.push(due, Event::Wake { slot, life });
        }
    }

    fn wake(&mut self, slot: usize, life: u64) -> Verdict {
        let host = &mut self.hosts[slot];
        if self.lab.nodes[slot].life != life || host.wake_at != self.now {
            return Ok(());
        }
        host.wake_at = u64::MAX;
        if host.paused {
            return Ok(());
        }
        self.tick_if_due(slot)
    }

    fn tick_if_due(&mut self, slot: usize) -> Verdict {
        let host = &self.hosts[slot];
        let Some(raft) = self.raft(slot) else { return Ok(()) };
        let due = raft.deadline().is_some_and(|(at, _)| at <= host.clock.at(self.now));
        if due && host.ticks_from <= self.now {
            return self.act(slot, What::Tick);
        }
        self.plan_wake(slot);
        Ok(())
    }

    /// Has its state machine anything to do?
    pub(crate) fn next_work(&self, slot: usize) -> Option<&Work> {
        self.lab.nodes[slot].process.as_ref()?.work.front()
    }

    /// The sender of a snapshot, in the life in which it sent it.
    pub(crate) fn sends_still(&self, from: usize, to: usize, nth: u32) -> bool {
        let ship = self.lab.shipment(from, to, nth);
        self.is_running(from) && ship.is_some_and(|ship| ship.life == self.life(from))
    }
}

impl Host {
    /// Another process is there.
    pub(crate) fn began(&mut self) {
        self.paused = false;
        self.inbox.clear();
        self.syncing = 0;
        self.applying = false;
        self.wake_at = u64::MAX;
    }
}

/// Whose node that is.
pub(crate) const fn id_of(slot: usize) -> NodeId {
    NodeId(slot as u64 + 1)
}

/// What a clock shows, for a trace.
pub(crate) fn seconds(now: u64) -> f64 {
    now as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_asked_to_wait_for() {
        for drift in [-100_000, -7, 0, 7, 100_000] {
            let clock = Clock { offset: 12_340, drift, jump: 5 };
            for instant in [0, 12_345, 12_346, 1_000_000, 77_777_777] {
                let when = clock.when(Instant(instant));
                assert!(clock.at(when) >= Instant(instant), "{drift} {instant}");
                assert!(when == 0 || clock.at(when - 1) < Instant(instant), "{drift} {instant}");
            }
        }
    }
}
