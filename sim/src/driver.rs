//! What a driver does: steps a core, with all its checks, and does what it wants done, in any order that the contract
//! allows.

use quorate_core::{Action, Body, Input, LogId, Message, NodeId, Rebase, Receipt, Rejected, Tokens, Write};

use crate::{
    ghost::{Cause, Wanted},
    network::Parcel,
    node::Work,
    rng::Rng,
    stats::Count,
    violation::{Broken, Verdict, hold},
    watch::{Seen, Step, Stimulus},
    world::{Event, World},
};

/// A sound run of a minute takes a few ten thousand steps. Messages that beget more messages never end.
const MOST_STEPS: u64 = 5_000_000;

/// What must be remembered of an input while it is taken up.
struct Asked {
    tokens: Option<Tokens>,
    wanted: Option<Wanted>,
    snapshot: Option<LogId>,
    cause: Cause,
    from_peer: bool,
}

impl World {
    /// One step of one core, with all its checks, and then what it wants done.
    pub(crate) fn step(&mut self, slot: usize, input: Input) -> Verdict {
        self.step_message(slot, 0, input)
    }

    /// The same, with the number of the message that it is.
    pub(crate) fn step_message(&mut self, slot: usize, id: u64, input: Input) -> Verdict {
        let node = &mut self.nodes[slot];
        let life = node.life;
        let now = node.clock.at(self.now);
        node.seen = now.max(node.seen);
        let Some(process) = &mut node.process else { return Ok(()) };
        self.counts.bump(Count::Steps);
        hold!(self.counts[Count::Steps] <= MOST_STEPS, "liveness", "a storm: {MOST_STEPS} steps, and no end");
        self.digest.add(&(self.now, slot, &input));
        self.trace.line(self.now, || format!("n{} <- {input:?}", slot + 1));
        let raft = &mut process.raft;
        let asked = asked(&input, raft.membership());
        let stimulus = (!self.watchers.is_empty()).then(|| Stimulus::of(&input, id));
        let result = raft.step(now, input);
        let actions: Vec<Action> = raft.drain().collect();
        if let Err(rejected) = result {
            self.trace.line(self.now, || format!("n{} refuses: {rejected}", slot + 1));
            self.digest.add(&rejected);
            check_refusal(slot, &rejected, asked.from_peer, &actions)?;
        }
        for action in &actions {
            self.digest.add(action);
            self.trace.line(self.now, || format!("n{} -> {action:?}", slot + 1));
        }
        if let Some(tokens) = asked.tokens {
            self.ghost.on_taken(tokens, result.is_ok(), raft.term(), &mut self.counts);
        }
        // What it wrote, then what it is now, then what it says and hands out: each is held against the one before.
        let mut wrote = false;
        for write in actions.iter().filter_map(as_write) {
            self.ghost.on_write(slot, raft, write, asked.cause, &mut self.counts)?;
            wrote = true;
        }
        if let Some(tokens) = asked.tokens
            && let Some(wanted) = asked.wanted
            && result.is_ok()
        {
            self.ghost.on_change_taken(slot, &wanted)?;
            self.ghost.want(tokens.first.0, wanted);
        }
        self.ghost.after_step(slot, raft, wrote, &mut self.counts)?;
        for action in &actions {
            self.ghost.on_action(slot, life, raft, action, &mut self.counts)?;
        }
        if let Some(stimulus) = &stimulus {
            let step = Step { slot, now, stimulus, result, actions: &actions, raft };
            let seen = Seen::Stepped(step);
            self.watchers.iter_mut().try_for_each(|watcher| watcher.see(self.now, &seen))?;
        }
        if let Some(last) = asked.snapshot
            && !actions.iter().filter_map(as_write).any(|write| installs(write, last))
        {
            self.counts.bump(Count::SnapshotsUnwanted);
            node.disk.unstage(last);
        }
        if self.counts[Count::Steps].is_multiple_of(32) {
            self.check_bounds(slot)?;
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
        self.check_size(slot, &action)?;
        let life = self.nodes[slot].life;
        match action {
            Action::Send { to, message } => self.send(slot, to.0 as usize - 1, message),
            Action::Write(write) => {
                if let Some(process) = &mut self.nodes[slot].process {
                    process.queued.push_back(write);
                }
                self.begin_sync(slot);
                Ok(())
            }
            Action::Apply(apply) => {
                self.hand_out(slot, Work::Apply(apply));
                Ok(())
            }
            Action::Restore(snapshot) => {
                let state = self.nodes[slot].disk.picture(snapshot.last).map(|picture| picture.state);
                self.hand_out(slot, Work::Restore(snapshot, state));
                Ok(())
            }
            Action::Load(load) => {
                let delay = self.disk_rng.exponential(self.plan.disk_mean);
                self.push(delay, Event::Loaded { slot, life, load });
                Ok(())
            }
            Action::SendSnapshot(send) => self.send_snapshot(slot, send),
            Action::Resolve { .. } | Action::Event(_) => Ok(()),
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) -> Verdict {
        self.sent += 1;
        let id = self.sent;
        if !self.watchers.is_empty() {
            self.see(&Seen::Sent { id, from, to, message: &message })?;
        }
        let Self { network, queue, plan, counts, now, faulty, last_straggler, watchers, .. } = self;
        let mut told = Ok(());
        let arrive = |at: u64, parcel| {
            if *faulty {
                *last_straggler = at.max(*last_straggler);
            }
            queue.push(at, Event::Deliver(parcel));
        };
        let lost = |id, why| {
            for watcher in watchers.iter_mut() {
                let seen = watcher.see(*now, &Seen::Lost { id, why });
                if told.is_ok() {
                    told = seen;
                }
            }
        };
        network.send(*now, Parcel { id, from, to, message }, plan, counts, arrive, lost)?;
        told
    }

    // ---- the disk ----

    pub(crate) fn make_durable(&mut self, slot: usize, write: &Write) -> Verdict {
        let disk = &mut self.nodes[slot].disk;
        disk.apply(write)?;
        self.ghost.on_durable(slot, write, disk.newest())?;
        self.see(&Seen::Durable { slot, write })
    }

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

    pub(crate) fn synced(&mut self, slot: usize, life: u64, number: u64) -> Verdict {
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
                Some(before) => match Receipt::merge(before, receipt) {
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
        self.tell(&[slot], || format!("n{}: its disk fails", slot + 1))?;
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

    fn hand_out(&mut self, slot: usize, work: Work) {
        if let Some(process) = &mut self.nodes[slot].process {
            process.work.push_back(work);
        }
        self.begin_work(slot);
    }

    fn begin_work(&mut self, slot: usize) {
        let mut delay = self.driver_rng.exponential(self.plan.apply_mean);
        let Some(process) = &mut self.nodes[slot].process else { return };
        let Some(work) = process.work.front().filter(|_| !process.applying) else { return };
        if matches!(work, Work::Restore(..)) {
            delay += self.snapshot_rng.exponential(self.plan.snapshot_mean);
        }
        if self.faulty && self.rare_rng.chance(self.plan.apply_stall) {
            self.counts.bump(Count::SlowApplies);
            delay += self.rare_rng.below(2_000_000);
        }
        process.applying = true;
        let life = self.nodes[slot].life;
        self.push(delay, Event::Applied { slot, life });
    }

    pub(crate) fn applied(&mut self, slot: usize, life: u64) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        if node.life != life {
            return Ok(());
        }
        process.applying = false;
        let Some(work) = process.work.pop_front() else { return Ok(()) };
        let restored = matches!(work, Work::Restore(..));
        let up_to = match work {
            // The observer has seen that these are the entries that were committed.
            Work::Apply(apply) => {
                process.machine = (apply.last().0, self.ghost.state_at(apply.last().0).unwrap_or_default());
                apply.last()
            }
            Work::Restore(snapshot, state) => {
                self.counts.bump(Count::Restores);
                let index = snapshot.last.index;
                hold!(
                    state.is_some() && state == self.ghost.state_at(index.0),
                    "P1",
                    "node {} restores {snapshot:?}, whose state {state:?} is not the one at its index",
                    slot + 1
                );
                process.machine = (index.0, state.unwrap_or_default());
                index
            }
        };
        if self.plan.durable_machine {
            node.disk.applied = up_to.0;
        }
        self.see(&Seen::Applied { slot, index: up_to.0, restored })?;
        self.begin_work(slot);
        self.feed(slot, Input::Applied { up_to })
    }
}

/// What an input asks for, before it is taken up.
fn asked(input: &Input, membership: &quorate_core::Membership) -> Asked {
    let wanted = match input {
        Input::ChangeMembership { change, .. } => Some(Wanted::of(membership, change)),
        _ => None,
    };
    let snapshot = match input {
        Input::Receive { message, .. } => match &message.body {
            Body::InstallSnapshot { snapshot } => Some(snapshot.last),
            _ => None,
        },
        _ => None,
    };
    Asked {
        tokens: taken_tokens(input),
        cause: Cause { change: wanted.is_some() },
        wanted,
        snapshot,
        from_peer: matches!(input, Input::Receive { .. }),
    }
}

fn check_refusal(slot: usize, rejected: &Rejected, from_peer: bool, actions: &[Action]) -> Verdict {
    let n = slot + 1;
    let wrongly =
        matches!(rejected, Rejected::BadLoad | Rejected::StaleReceipt | Rejected::BadApplied { .. });
    hold!(!wrongly, "contract", "node {n} refuses what its own driver says: {rejected}");
    let impossible = matches!(rejected, Rejected::Malformed(_) | Rejected::Unexpected { .. });
    hold!(!(from_peer && impossible), "refused", "node {n} refuses what a correct node has sent: {rejected}");
    hold!(actions.is_empty(), "contract", "node {n} refuses ({rejected}), and yet: {actions:?}");
    Ok(())
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

fn installs(write: &Write, last: LogId) -> bool {
    matches!(write.rebase.as_deref(), Some(Rebase::Install(snapshot)) if snapshot.last == last)
}

/// The tokens that an input asks to be taken.
const fn taken_tokens(input: &Input) -> Option<Tokens> {
    match input {
        Input::Propose(proposal) => Some(proposal.tokens()),
        Input::Read { token, .. }
        | Input::ChangeMembership { token, .. }
        | Input::TransferLeadership { token, .. } => Some(Tokens::one(*token)),
        Input::Tick
        | Input::CancelRead { .. }
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

/// Any order that the contract allows: writes keep theirs, applies keep theirs, and so do messages to one peer.
fn shuffle_across_lanes(actions: &mut Vec<Action>, rng: &mut Rng) {
    let lane = |action: &Action| match action {
        Action::Write(_) => 0,
        Action::Apply(_) | Action::Restore(_) => 1,
        Action::Send { to: NodeId(to), .. } => 2 + to,
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
