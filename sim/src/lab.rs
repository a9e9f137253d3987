//! The cluster itself: cores, disks and state machines, with all that checks them. It does what it is told, one [`Op`] after
//! another; when and what is up to [`World`](crate::world::World), or to a schedule that was written down.

mod doomed;
mod judge;
mod lanes;
mod ships;
mod step;
mod told;

use std::collections::BTreeMap;

use quorate_core::{
    Config, Input, Instant, LoadId, Membership, Message, NodeId, Proposal, Raft, ReadKind, Rejected, Token,
    Tokens, Write,
};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    disk::{Damaged, Disk},
    ghost::{Floor, Ghost, Kind as Request},
    node::{Node, Process},
    op::{Kind, Op, Timed, What},
    stats::{Count, Counts},
    trace::Trace,
    violation::{Broken, Verdict, hold},
    watch::{Seen, Watch},
    workload::Service,
};
use judge::Judge;
pub(crate) use judge::{Answered, Query};
pub(crate) use ships::Shipment;
pub(crate) use told::Told;

/// How the cluster is set up: all that must be known to do a list of operations again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// How many nodes there are at the beginning.
    pub(crate) nodes: usize,
    /// How many there may ever be.
    pub(crate) slots: usize,
    /// Who votes at the beginning.
    pub(crate) membership: Membership,
    /// Every node's configuration, but for its id and its priority.
    pub(crate) config: Config,
    /// Each node's priority in elections: they differ.
    pub(crate) priorities: bool,
    /// What a state machine has applied survives a crash.
    pub(crate) durable_machine: bool,
    /// What runs on the nodes.
    pub(crate) service: String,
    /// Clients have sessions.
    pub(crate) sessions: bool,
    /// Disks may lose what they said was durable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) forgetful: bool,
}

impl Setup {
    /// The configuration of one node.
    pub(crate) fn config_of(&self, slot: usize) -> Config {
        let priority = if self.priorities { [255, 0, 100, 200, 255][slot % 5] } else { 255 };
        Config { id: NodeId(slot as u64 + 1), priority, ..self.config.clone() }
    }
}

/// A message that was sent, and what it is known by.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// Its number, for whoever looks on; copies share it.
    pub(crate) id: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Which of its kind, of those from there to there.
    pub(crate) nth: u32,
    pub(crate) vague: bool,
    pub(crate) message: Message,
}

/// What an operation has led to: things to be done, some time.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sends: Vec<Parcel>,
    /// A write was issued.
    pub(crate) wrote: bool,
    /// The state machine was handed something.
    pub(crate) work: bool,
    pub(crate) loads: Vec<LoadId>,
    /// Snapshots to be sent: to whom, and which.
    pub(crate) ships: Vec<(usize, u32)>,
    /// The core has refused what it was told.
    pub(crate) refused: Option<Rejected>,
    /// A snapshot is durable, and the newest: at this index.
    pub(crate) snapshot: Option<u64>,
    /// The tokens that a request was given, if it was one.
    pub(crate) asked: Option<(u64, u64)>,
    pub(crate) answered: Vec<Answered>,
    /// How requests have ended, but for those that are answered.
    pub(crate) resolved: Vec<(Tokens, quorate_core::Outcome)>,
}

impl Outcome {
    fn clear(&mut self) {
        let Self { sends, wrote, work, loads, ships, refused, snapshot, asked, answered, resolved } = self;
        sends.clear();
        loads.clear();
        answered.clear();
        resolved.clear();
        *asked = None;
        ships.clear();
        (*wrote, *work) = (false, false);
        (*refused, *snapshot) = (None, None);
    }
}

/// All that there is of a cluster.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) setup: Setup,
    /// µs of true time.
    pub(crate) now: u64,
    /// Those that there are, or were: a slot is never used again.
    pub(crate) nodes: Vec<Node>,
    pub(crate) ghost: Ghost,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    pub(crate) digest: Digest,
    pub(crate) watchers: Vec<Box<dyn Watch>>,
    pub(crate) outcome: Outcome,
    /// Messages sent so far.
    numbers: u64,
    /// How many of each kind were sent from each to each.
    sent: Vec<u32>,
    /// All of them, if they are asked for by what they are known by.
    mail: Option<BTreeMap<(usize, usize, Kind, u32), Parcel>>,
    /// Everything that was done, if it is to be written down.
    pub(crate) tape: Option<Vec<Timed>>,
    ships: BTreeMap<(usize, usize, u32), Shipment>,
    judge: Judge,
}

impl Lab {
    pub(crate) fn new(setup: Setup, service: Service, trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Self {
        let slots = setup.slots;
        Self {
            now: 0,
            nodes: Vec::new(),
            ghost: Ghost::new(slots, setup.membership.clone()),
            counts: Counts::default(),
            trace,
            digest: Digest::default(),
            watchers,
            outcome: Outcome::default(),
            numbers: 0,
            sent: vec![0; slots * slots * Kind::COUNT],
            mail: None,
            tape: None,
            ships: BTreeMap::new(),
            judge: Judge::new(service, setup.sessions),
            setup,
        }
    }

    /// Everything that is done from now on can be asked for.
    pub(crate) fn record(&mut self) {
        self.tape = Some(Vec::new());
    }

    /// Messages are kept, to be delivered by name.
    pub(crate) fn keep_mail(&mut self) {
        self.mail = Some(BTreeMap::new());
    }

    /// Does one thing at `at`. What isn't there (any more) isn't done.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn perform(&mut self, at: u64, op: Op) -> Verdict {
        self.perform_with(at, op, None)
    }

    /// The same, with the message at hand that the operation names.
    pub(crate) fn perform_with(&mut self, at: u64, op: Op, parcel: Option<Parcel>) -> Verdict {
        self.now = at;
        self.outcome.clear();
        if let Some(tape) = &mut self.tape {
            tape.push(Timed(at, op.clone()));
        }
        if op.slot().is_some_and(|slot| slot >= self.nodes.len()) {
            return Ok(());
        }
        let slot = op.slot();
        match op {
            Op::Provision { membership } => self.provision(&membership),
            Op::Start { slot, now } => self.start(slot, Instant(now)),
            Op::Crash { slot, kept } => self.crash(slot, kept),
            Op::Reopen { slot, kept, now } => self.reopen(slot, kept, Instant(now)),
            Op::Input { slot, now, what } => self.input(slot, Instant(now), what, parcel),
            Op::TakeSnapshot { slot } => self.take_snapshot(slot),
            Op::SnapshotDurable { slot } => self.snapshot_durable(slot),
            Op::Forget { slot, writes } => self.forget(slot, writes),
            Op::Rot { slot } => {
                self.nodes[slot].disk.rot();
                Ok(())
            }
            Op::AllResolved { slots } => {
                let life = |slot: usize| slots.contains(&slot).then(|| self.nodes[slot].life);
                self.ghost.all_resolved(life)
            }
        }?;
        slot.map_or(Ok(()), |slot| self.hand_in_stale(slot))
    }

    /// A receipt of an earlier life is handed in when one of its number is due: that is when it could be taken for that.
    fn hand_in_stale(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &node.process else { return Ok(()) };
        let Some(due) = process.writes.front().map(Write::seq) else { return Ok(()) };
        let Some(at) = node.stale.iter().position(|receipt| receipt.seq() == due) else { return Ok(()) };
        let receipt = node.stale.swap_remove(at);
        let now = node.seen;
        let before = self.outcome.refused;
        self.step(slot, now, 0, Input::Persisted(receipt))?;
        self.must_be_refused(slot, "a receipt", |refused| matches!(refused, Rejected::StaleReceipt))?;
        self.outcome.refused = before;
        Ok(())
    }

    // ---- machines and processes ----

    fn provision(&mut self, membership: &Membership) -> Verdict {
        let slot = self.nodes.len();
        if slot >= self.setup.slots {
            return Ok(());
        }
        let mut disk = Disk::new(membership.clone());
        if self.setup.forgetful {
            disk.may_forget();
        }
        self.nodes.push(Node {
            disk,
            seen: Instant(0),
            life: 0,
            process: None,
            machine: None,
            stale: Vec::new(),
        });
        self.ghost.provision(slot, membership.clone());
        self.see(&Seen::Provisioned { slot, membership })
    }

    fn start(&mut self, slot: usize, now: Instant) -> Verdict {
        if self.nodes[slot].process.is_some() {
            return Ok(());
        }
        let config = self.setup.config_of(slot);
        let node = &mut self.nodes[slot];
        node.life += 1;
        let recovered = match node.disk.recover(self.setup.durable_machine) {
            Ok(recovered) => recovered,
            Err(Damaged) => {
                self.counts.bump(Count::Damaged);
                return self
                    .tell(&[slot], || format!("n{} finds its disk damaged, and doesn't start", slot + 1));
            }
        };
        let newest = node.disk.newest();
        let applied = recovered.applied.0;
        node.seen = now;
        self.trace.line(self.now, || format!("n{} starts: {recovered:?}", slot + 1));
        doomed::check_starts(slot + 1, &config, &recovered, now)?;
        let raft = match Raft::new(config, recovered, now) {
            Ok(raft) => raft,
            Err(error) => return Err(Broken("D3", format!("node {} can't start: {error}", slot + 1))),
        };
        self.ghost.on_start(slot, &raft)?;
        self.ghost.on_durable_snapshot(slot, newest)?;
        for watcher in &mut self.watchers {
            watcher.see(self.now, &Seen::Started { slot, raft: &raft })?;
        }
        let machine = (applied, self.ghost.state_at(applied).unwrap_or_default());
        self.nodes[slot].process = Some(Process::new(raft, machine));
        if !(self.setup.durable_machine && self.nodes[slot].machine.is_some() && applied > newest) {
            let body = self.nodes[slot].disk.newest_body(applied);
            self.restore_machine(slot, applied, body)?;
        }
        Ok(())
    }

    /// The process is gone; what its disk had not done is done in part: some of the oldest writes.
    fn crash(&mut self, slot: usize, kept: usize) -> Verdict {
        let Some(process) = self.nodes[slot].process.take() else { return Ok(()) };
        let life = self.nodes[slot].life;
        self.nodes[slot].stale.clear();
        self.nodes[slot].life += 1;
        self.counts.bump(Count::Crashes);
        let Process { raft, writes, .. } = process;
        let mut writes: Vec<Write> = writes.into();
        let lost = writes.split_off(kept.min(writes.len()));
        let kept = writes.len();
        self.trace
            .line(self.now, || format!("n{} crashes: {kept} writes kept, {} lost", slot + 1, lost.len()));
        self.counts[Count::KeptWrites] += kept as u64;
        self.counts[Count::LostWrites] += lost.len() as u64;
        for write in &writes {
            self.make_durable(slot, write)?;
        }
        self.see(&Seen::Crashed { slot, kept, lost: lost.len() })?;
        writes.extend(lost);
        self.question(slot, life, raft, writes)
    }

    /// A process starts its group again, with the last life's writes, questions and snapshots still under way: the store takes no
    /// write of an earlier incarnation, and the core no word about one (contract, point 7).
    fn reopen(&mut self, slot: usize, kept: usize, now: Instant) -> Verdict {
        let Some(process) = self.nodes[slot].process.take() else { return Ok(()) };
        self.nodes[slot].life += 1;
        self.counts.bump(Count::Reopened);
        self.tell(&[slot], || format!("n{} is started again within its process", slot + 1))?;
        let mut writes: Vec<Write> = process.writes.into();
        let late = writes.split_off(kept.min(writes.len()));
        for write in &writes {
            self.make_durable(slot, write)?;
        }
        self.see(&Seen::Crashed { slot, kept: writes.len(), lost: late.len() })?;
        self.start(slot, now)?;
        if self.nodes[slot].process.is_none() {
            return Ok(());
        }
        for write in writes.into_iter().chain(late) {
            let stale = self.nodes[slot].disk.is_stale(&write);
            hold!(stale, "D3", "node {}'s store takes a write of an earlier incarnation", slot + 1);
            self.nodes[slot].stale.push(write.into_receipt());
        }
        let many = self.nodes[slot].stale.len().saturating_sub(MOST_STALE);
        self.nodes[slot].stale.drain(..many);
        for load in process.loads {
            let result = self.nodes[slot].disk.load(&load);
            self.step(slot, now, 0, Input::Loaded { id: load.id, result })?;
            self.must_be_refused(slot, "an answer", |refused| matches!(refused, Rejected::StaleLoad))?;
        }
        Ok(())
    }

    fn must_be_refused(&self, slot: usize, what: &str, right: impl Fn(&Rejected) -> bool) -> Verdict {
        let refused = self.outcome.refused.as_ref();
        // A node whose store has failed says that to everything.
        let right = refused.is_some_and(|refused| right(refused) || matches!(refused, Rejected::Stopped));
        hold!(right, "contract", "node {} takes {what} of an earlier life: {refused:?}", slot + 1);
        Ok(())
    }

    /// The disk loses what it said was durable.
    fn forget(&mut self, slot: usize, writes: usize) -> Verdict {
        if self.nodes[slot].process.is_none() && self.nodes[slot].disk.forget(writes) {
            self.counts.bump(Count::Forgotten);
            return self.tell(&[slot], || format!("the disk of n{} loses {writes} writes", slot + 1));
        }
        Ok(())
    }

    // ---- inputs ----

    fn input(&mut self, slot: usize, now: Instant, what: What, parcel: Option<Parcel>) -> Verdict {
        if self.nodes[slot].process.is_none() {
            return Ok(());
        }
        let life = self.nodes[slot].life;
        let asks = matches!(what, What::Read { query: Some(_), .. });
        let input = match what {
            What::Tick => {
                self.counts.bump(Count::Ticks);
                Input::Tick
            }
            What::Deliver { from, kind, ago, vague } => {
                let Some(parcel) = parcel.or_else(|| self.fetch(from, slot, kind, ago, vague)) else {
                    return Ok(());
                };
                let from = NodeId(from as u64 + 1);
                return self.step(slot, now, parcel.id, Input::Receive { from, message: parcel.message });
            }
            What::Ship { from, ago } => {
                let nth = self.nth(from, slot, Kind::InstallSnapshot, ago);
                return self.ship(slot, now, from, nth);
            }
            What::Shipped { to, ago, arrived } => {
                let nth = self.nth(slot, to, Kind::InstallSnapshot, ago);
                return self.shipped(slot, now, to, nth, arrived);
            }
            What::Persist { count } => return self.persist(slot, now, count),
            What::DiskFails { count } => return self.disk_fails(slot, now, count),
            What::Load { nth } => return self.load(slot, now, nth),
            What::Apply => return self.apply(slot, now),
            What::Compact { snapshot, keep } => {
                let newest = self.nodes[slot].disk.newest();
                Input::Compact { snapshot: quorate_core::Index(snapshot.unwrap_or(newest)), keep }
            }
            What::Propose { commands, term, pad } => {
                let first = self.ghost.next_token();
                self.ghost.ask(slot, life, Request::Proposal, commands.len() as u64);
                self.outcome.asked = Some((first, commands.len() as u64));
                let batch = commands
                    .iter()
                    .zip(first..)
                    .map(|(command, token)| tagged(token, pad, command))
                    .collect();
                Input::Propose(Proposal { first_token: Token(first), batch, term })
            }
            What::Read { kind, query } => {
                let token = Token(self.ghost.next_token());
                let (floor, why) = match kind {
                    ReadKind::Linearizable => (self.ghost.floor(), Floor::Acknowledged),
                    ReadKind::Lease => (self.ghost.floor(), Floor::Leased),
                    ReadKind::AtLeast(index) => (index.0, Floor::Asked),
                };
                self.ghost.ask(slot, life, Request::Read { floor, why }, 1);
                self.outcome.asked = Some((token.0, 1));
                if let Some(query) = query
                    && let Some(process) = &mut self.nodes[slot].process
                {
                    process.reads.push((token.0, query));
                }
                Input::Read { token, kind }
            }
            What::CancelRead => {
                let Some(token) = self.ghost.oldest_read_at_least(slot, life) else { return Ok(()) };
                Input::CancelRead { token: Token(token) }
            }
            What::Change { change } => {
                let token = Token(self.ghost.next_token());
                self.ghost.ask(slot, life, Request::Change, 1);
                Input::ChangeMembership { token, change }
            }
            What::Transfer { to } => {
                let token = Token(self.ghost.next_token());
                self.ghost.ask(slot, life, Request::Transfer { term: 0, told: false }, 1);
                Input::TransferLeadership { token, to }
            }
            What::AbortTransfer => Input::AbortTransfer,
            What::StepDown => Input::StepDown,
            What::Campaign => Input::Campaign,
            What::ForgetLeader => Input::ForgetLeader,
            What::Unreachable { peer } => Input::Unreachable { peer },
            What::Reachable { peer } => Input::Reachable { peer },
        };
        let reads = self.nodes[slot].process.as_ref().map_or(0, |process| process.reads.len());
        self.step(slot, now, 0, input)?;
        // A read that was refused at once waits for nothing.
        if self.outcome.refused.is_some()
            && let Some(process) = &mut self.nodes[slot].process
        {
            process.reads.truncate(reads - usize::from(asks));
        }
        Ok(())
    }

    fn fetch(&self, from: usize, to: usize, kind: Kind, ago: u32, vague: bool) -> Option<Parcel> {
        let nth = self.nth(from, to, kind, ago);
        let mut parcel = self.mail.as_ref()?.get(&(from, to, kind, nth))?.clone();
        if vague {
            parcel.make_vague();
        }
        Some(parcel)
    }

    /// A number for a message, for whoever looks on.
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Which message that is, from 0; none at all where there are not so many.
    fn nth(&self, from: usize, to: usize, kind: Kind, ago: u32) -> u32 {
        let sent = self.sent.get(self.count_of(from, to, kind)).copied().unwrap_or_default();
        sent.checked_sub(ago + 1).unwrap_or(u32::MAX)
    }

    /// How many of its kind were sent there since the nth.
    pub(crate) fn ago(&self, from: usize, to: usize, kind: Kind, nth: u32) -> u32 {
        self.sent[self.count_of(from, to, kind)].saturating_sub(nth + 1)
    }

    fn count_of(&self, from: usize, to: usize, kind: Kind) -> usize {
        (from * self.setup.slots + to) * Kind::COUNT + kind as usize
    }

    fn count_sent(&mut self, from: usize, to: usize, kind: Kind) -> u32 {
        let at = self.count_of(from, to, kind);
        let nth = self.sent[at];
        self.sent[at] += 1;
        nth
    }

    // ---- for whoever looks on ----

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
}

/// A command with its token in front, by which the observer knows it again.
fn tagged(token: u64, pad: u32, command: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(TAG + pad as usize + command.len());
    tagged.extend_from_slice(&token.to_le_bytes());
    tagged.extend_from_slice(&pad.to_le_bytes());
    tagged.resize(TAG + pad as usize, b'.');
    tagged.extend_from_slice(command);
    tagged
}

/// Receipts of earlier lives that are kept for a node.
const MOST_STALE: usize = 64;

/// In front of each command in the log: its token, and how many bytes follow that mean nothing.
const TAG: usize = 12;

impl Parcel {
    /// A hint that names an earlier entry than it could is as true. It leads the leader back further than need be, and so to
    /// appends that end before the place where the logs differ.
    pub(crate) fn make_vague(&mut self) {
        if let quorate_core::Body::Conflict { hint, .. } = &mut self.message.body {
            *hint = quorate_core::LogId::ZERO;
            self.vague = true;
        }
    }
}
