//! The one task that owns a `Raft`: it takes up all that waits, steps, does what the core asks for, and sleeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::Sender,
    },
    task::Poll,
    time::Duration,
    vec::Drain,
};

use quorate_core::{
    Action, Apply, Batch, Body, ENTRY_HEADER, Event, Index, Input, Instant, Message, NodeId, Outcome,
    Proposal, ReadKind, Rejected, StateMachine, Token, Tokens,
};
use tracing::{debug, error, info, warn};

use crate::{
    alarm::Alarm,
    apply::{Job, Reading},
    clock,
    control::{Controls, Handover},
    error::{Refusal, StopReason, Stopped},
    inbox::{Answer, Inbox, Proposed, Work},
    recorded::Recorded,
    shared::Shared,
    status::{Leadership, count},
    storage::{Loads, Writes},
    thread::Ended,
    waiters::Waiters,
};

/// Tokens of reads and of requests about the cluster are from here on, those of proposals below: no node lives to see
/// 2⁶³ of them.
const FIRST_READ: u64 = 1 << 63;

/// So many messages are stepped before what they led to is done: far fewer than the core's queue of actions holds.
const MESSAGES_AT_ONCE: usize = 64;

/// Woken later than this, the process was paused (or starved), and what arrived meanwhile may still lie in the
/// sockets; so it is given [`GRACE`] to come in before the core learns that time has passed. Else every pause would
/// depose a leader whose heartbeats have long been there.
const LATE: Duration = Duration::from_millis(20);
const GRACE: Duration = Duration::from_millis(5);

/// What runs a node.
pub(crate) struct Driver<S: StateMachine> {
    /// Dropped first, so that whoever then finds his answer dropped can learn why.
    pub(crate) last_word: LastWord<S>,
    pub(crate) raft: Recorded,
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) lanes: Lanes<S>,
    /// A batch of proposals is at most this big, unless it is of one.
    pub(crate) batch_bytes: usize,
    /// How long a shutdown waits for requests under way.
    pub(crate) drain_timeout: Duration,
    pub(crate) proposals: Waiters<Answer<S::Reply>>,
    pub(crate) reads: Reads<S>,
    pub(crate) controls: Controls,
    /// Peers that the transport has lost touch with, and that have not been heard since.
    pub(crate) lost: BTreeSet<NodeId>,
    /// When the last work was taken up.
    pub(crate) now: Instant,
    /// The last index handed to apply, and the last applied.
    pub(crate) handed: Index,
    pub(crate) applied: Index,
    pub(crate) stopping: Option<Stopping>,
}

/// The queues of the node's threads, each of which ends when its queue is let go of.
pub(crate) struct Lanes<S: StateMachine> {
    pub(crate) writes: Writes,
    pub(crate) loads: Loads,
    pub(crate) jobs: Sender<Job<S>>,
    /// Tells the apply thread not to finish what it has.
    pub(crate) quit: Arc<AtomicBool>,
}

/// Reads that wait for a read index. Those that came together wait together.
pub(crate) struct Reads<S> {
    next: u64,
    waiting: BTreeMap<Token, Vec<Box<dyn Reading<S>>>>,
}

/// The node is to stop.
pub(crate) struct Stopping {
    why: StopReason,
    /// Requests under way may still end until then, and leadership be handed over.
    until: Instant,
    pub(crate) handover: Handover,
}

impl<S: StateMachine> Driver<S> {
    /// Runs until the node stops, and then until its threads have ended.
    pub(crate) async fn run(mut self, mut ended: Ended) {
        let mut alarm = Alarm::new();
        let mut work = Work::new();
        self.act();
        let why = loop {
            self.hand_over();
            self.publish_leadership();
            if let Some(why) = self.is_over() {
                break why;
            }
            alarm.set(self.wake_at());
            wait(&self.shared.inbox, &mut alarm).await;
            self.take_up(&mut work);
            if let Some(late) = self.due() {
                if late > LATE {
                    tokio::time::sleep(GRACE).await;
                    self.take_up(&mut work);
                }
                if self.due().is_some() {
                    self.step(Input::Tick);
                    self.act();
                }
            }
            // A node with much to do lets others on its worker run as well.
            tokio::task::coop::consume_budget().await;
        };
        self.resolve_all(&why);
        #[cfg(feature = "record")]
        self.raft.stopped(&why);
        self.last_word.why = why;
        self.last_word.say();
        let last_word = self.dissolve();
        ended.wait().await;
        if let Some(transport) = &last_word.shared.transport {
            transport.shutdown().await;
        }
    }

    /// Lets go of the threads' queues, which ends them.
    fn dissolve(self) -> LastWord<S> {
        self.last_word
    }

    fn wake_at(&self) -> Option<Instant> {
        let deadline = self.raft.deadline().map(|(at, _)| at);
        let until = self.stopping.as_ref().map(|stopping| stopping.until);
        deadline.into_iter().chain(until).min()
    }

    /// By how much the core's deadline has passed, if it has.
    fn due(&self) -> Option<Duration> {
        let (deadline, _) = self.raft.deadline()?;
        (deadline <= self.now).then(|| Duration::from_micros(self.now.since(deadline)))
    }

    /// Takes up all that waits, and does what follows from it.
    fn take_up(&mut self, work: &mut Work<S>) {
        self.shared.inbox.take(work, self.proposals.len());
        // After taking it up, never before: no message may seem to come earlier than it did.
        self.now = clock::now();
        for input in work.inputs.drain(..) {
            self.step(input);
        }
        if let Some(up_to) = work.applied.take() {
            self.applied = up_to;
            self.step(Input::Applied { up_to });
        }
        for peer in std::mem::take(&mut work.lost) {
            self.lost_touch(peer);
        }
        count(&self.shared.counters.messages, work.messages.len());
        for (n, (from, message)) in work.messages.drain(..).enumerate() {
            self.receive(from, message);
            if n % MESSAGES_AT_ONCE == MESSAGES_AT_ONCE - 1 {
                self.act();
            }
        }
        // Whoever has given up by now wants nothing any more.
        work.proposals.retain(|proposed| !proposed.answer.is_closed());
        self.propose(work.proposals.drain(..));
        self.read(ReadKind::Linearizable, &mut work.reads);
        self.read(ReadKind::Lease, &mut work.lease_reads);
        for (index, mut reads) in std::mem::take(&mut work.reads_at) {
            self.read(ReadKind::AtLeast(index), &mut reads);
        }
        for control in work.controls.drain(..) {
            self.control(control);
        }
        for read in work.stale_reads.drain(..) {
            self.hand_to_apply(Job::Read(read));
        }
        if let Some(why) = work.stop.take() {
            self.stop(why);
        }
        self.act();
        for question in work.questions.drain(..) {
            let _gone = question.send(self.raft.status());
        }
    }

    fn receive(&mut self, from: NodeId, message: Message) {
        // Lookup only: nearly always there is nobody in it.
        if !self.lost.is_empty() {
            self.lost.remove(&from);
        }
        if matches!(message.body, Body::InstallSnapshot { .. }) {
            // The core may hear of a snapshot when its bytes are staged, and this runtime stages none.
            count(&self.shared.counters.messages_refused, 1);
            let (node, group) = (self.shared.id, self.shared.group);
            return debug!(%node, %group, %from, "snapshot refused: this release takes none");
        }
        if let Err(rejected) = self.raft.step(self.now, Input::Receive { from, message }) {
            self.refused(from, &rejected);
        }
    }

    fn refused(&self, from: NodeId, rejected: &Rejected) {
        count(&self.shared.counters.messages_refused, 1);
        let (node, group) = (self.shared.id, self.shared.group);
        match rejected {
            // No correct node sends such a thing.
            Rejected::Malformed(why) => warn!(%node, %group, %from, %why, "malformed message refused"),
            _ => debug!(%node, %group, %from, %rejected, "message refused"),
        }
    }

    /// An input of the driver's own, which the core has no reason to refuse but these: it has stopped, nobody waits for
    /// those entries any more, or the store has answered with others than the log's.
    pub(crate) fn step(&mut self, input: Input) {
        let Err(rejected) = self.raft.step(self.now, input) else { return };
        if rejected == Rejected::BadLoad {
            self.stop(StopReason::Storage(rejected.to_string().into()));
        } else if !matches!(rejected, Rejected::StaleLoad | Rejected::Stopped) {
            warn!(node = %self.shared.id, group = %self.shared.group, %rejected, "the core refused an input");
        }
    }

    /// Proposes what came together together: consecutive tokens, one block, one write.
    fn propose(&mut self, mut proposals: Drain<'_, Proposed<S::Reply>>) {
        while !proposals.as_slice().is_empty() {
            let n = batch_len(proposals.as_slice(), self.batch_bytes);
            let commands = proposals.as_slice().get(..n).unwrap_or_default();
            let proposal = Proposal::new(self.proposals.next(), Batch::from(commands));
            let answers = proposals.by_ref().take(n).map(|proposed| proposed.answer);
            match self.raft.step(self.now, Input::Propose(proposal)) {
                Ok(()) => {
                    self.proposals.extend(answers);
                    count(&self.shared.counters.proposals, n);
                    count(&self.shared.counters.batches, 1);
                    // Its write is on its way, and counts, before the next batch is looked at.
                    self.act();
                }
                Err(rejected) => {
                    for answer in answers {
                        let _gone = answer.send(Err(rejected.into()));
                    }
                }
            }
        }
    }

    /// One read index serves all the reads of a kind that came together.
    fn read(&mut self, kind: ReadKind, reads: &mut Vec<Box<dyn Reading<S>>>) {
        if reads.is_empty() {
            return;
        }
        let token = self.reads.take_token();
        match self.raft.step(self.now, Input::Read { token, kind }) {
            Ok(()) => {
                count(&self.shared.counters.reads, reads.len());
                count(&self.shared.counters.read_batches, 1);
                self.reads.waiting.insert(token, std::mem::take(reads));
            }
            Err(rejected) => reads.drain(..).for_each(|read| read.refuse(rejected.into())),
        }
    }

    /// Does what the core asks for. All of it is only handed on: nothing here waits.
    pub(crate) fn act(&mut self) {
        while let Some(action) = self.raft.poll() {
            match action {
                Action::Send { to, message } => {
                    if let Some(transport) = &self.shared.transport {
                        transport.send(self.shared.group, to, message);
                    }
                }
                // A lane whose thread has ended has said why, and the node is about to stop.
                Action::Write(write) => drop(self.lanes.writes.send(write)),
                Action::Load(load) => drop(self.lanes.loads.send((self.shared.group, load))),
                Action::Apply(apply) => self.apply(apply),
                // No snapshot is ever let in, so none is adopted; if one were, its bytes would be nowhere.
                Action::Restore(snapshot) => self.stop(StopReason::NoSnapshot { at: snapshot.last }),
                // None is ever taken either: whoever asks for one has another's store.
                Action::SendSnapshot(send) => self.step(Input::SnapshotSent { id: send.id, arrived: false }),
                Action::Resolve { tokens, outcome } => self.resolve(tokens, outcome),
                Action::Event(event) => {
                    self.tell(&event);
                    if matches!(event, Event::Transfer { to: None }) {
                        self.transfer_ended();
                    }
                }
            }
        }
    }

    fn apply(&mut self, apply: Apply) {
        self.handed = apply.last();
        let mut waiting = Vec::new();
        for done in &apply.done {
            self.proposals.take(done.tokens, |place, answer| waiting.push((done.first.plus(place), answer)));
        }
        self.hand_to_apply(Job::Apply { entries: apply.entries, waiting });
    }

    fn hand_to_apply(&self, job: Job<S>) {
        // If the thread has ended the job is dropped, and whoever waits for it asks why.
        drop(self.lanes.jobs.send(job));
    }

    fn resolve(&mut self, tokens: Tokens, outcome: Outcome) {
        if tokens.first.0 >= FIRST_READ {
            for token in tokens.iter() {
                let Some(reads) = self.reads.waiting.remove(&token) else {
                    self.conclude(token, outcome);
                    continue;
                };
                for read in reads {
                    match outcome {
                        Outcome::Read { .. } => self.hand_to_apply(Job::Read(read)),
                        Outcome::Refused { leader } => read.refuse(Refusal::NotLeader(leader)),
                        Outcome::Unknown | Outcome::Changed { .. } | Outcome::Transferred { .. } => {
                            read.refuse(Refusal::NotLeader(None));
                        }
                    }
                }
            }
            return;
        }
        let storage = matches!(&self.stopping, Some(Stopping { why: StopReason::Storage(_), .. }));
        self.proposals.take(tokens, |_, answer| {
            let refusal = match outcome {
                Outcome::Refused { leader } => Refusal::NotLeader(leader),
                Outcome::Unknown if storage => Refusal::Unknown("the leader's store failed".into()),
                Outcome::Unknown => Refusal::Unknown("leadership was lost after it was appended".into()),
                // No proposal ends so; if one did, this would still be true.
                Outcome::Read { .. } | Outcome::Changed { .. } | Outcome::Transferred { .. } => {
                    Refusal::Unknown("the core answered it as something else".into())
                }
            };
            let _gone = answer.send(Err(refusal));
        });
    }

    fn tell(&self, event: &Event) {
        let (node, group) = (self.shared.id, self.shared.group);
        match event {
            Event::Role { term, role } => debug!(%node, %group, %term, ?role, "role"),
            Event::Leader { term, leader: Some(leader) } => {
                info!(%node, %group, %term, %leader, "leader elected");
            }
            Event::Leader { term, leader: None } => info!(%node, %group, %term, "no leader"),
            Event::Truncated { from, last } => {
                info!(%node, %group, %from, %last, "the end of the log was replaced by the leader's");
            }
            Event::Membership { index, membership } => {
                let (voters, learners) = (membership.voters(), membership.learners());
                info!(%node, %group, %index, ?voters, ?learners, joint = membership.is_joint(), "membership");
            }
            Event::Compacted { base } => debug!(%node, %group, %base, "the log begins later"),
            Event::Installed { last } => info!(%node, %group, %last, "a snapshot was installed"),
            Event::Peer { id, mode } => debug!(%node, %group, peer = %id, ?mode, "replication"),
            Event::Transfer { to: Some(to) } => info!(%node, %group, %to, "handing leadership over"),
            // How it ended is told with its outcome.
            Event::Transfer { to: None } => {}
            // The reason is told when the node stops.
            Event::Stopped => {}
        }
    }

    fn publish_leadership(&self) {
        let now = Leadership { term: self.raft.term(), leader: self.raft.leader(), role: self.raft.role() };
        self.shared.leadership.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    /// A shutdown waits for what is under way; everything else is over at once.
    fn stop(&mut self, why: StopReason) {
        let drain = if why == StopReason::Shutdown { self.drain_timeout } else { Duration::ZERO };
        let until = self.now.plus(u64::try_from(drain.as_micros()).unwrap_or(u64::MAX));
        let failed = matches!(why, StopReason::Storage(_) | StopReason::NoSnapshot { .. });
        let handover = Handover::before(&why);
        match &mut self.stopping {
            // Dropping the handle hurries a shutdown, and does not rename it.
            Some(stopping) if why == StopReason::Dropped => stopping.until = until,
            stopping => *stopping = Some(Stopping { why, until, handover }),
        }
        if failed {
            self.step(Input::StorageFailed);
        }
    }

    fn is_over(&self) -> Option<StopReason> {
        let stopping = self.stopping.as_ref()?;
        let idle = self.is_drained() && self.handed <= self.applied && stopping.handover == Handover::Over;
        (idle || stopping.until <= self.now).then(|| stopping.why.clone())
    }

    /// Nobody is left waiting.
    fn resolve_all(&mut self, why: &StopReason) {
        let stopped = Stopped { why: why.clone() };
        for answer in self.proposals.take_all() {
            let _gone = answer.send(Err(Refusal::Unknown(stopped.to_string())));
        }
        self.abandon_controls(&stopped.to_string());
        for read in std::mem::take(&mut self.reads.waiting).into_values().flatten() {
            read.refuse(Refusal::Stopped(stopped.clone()));
        }
        self.lanes.quit.store(true, Relaxed);
    }
}

impl<S> Reads<S> {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST_READ, waiting: BTreeMap::new() }
    }

    pub(crate) const fn take_token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Sleeps until something waits in the inbox or the alarm rings.
async fn wait<S: StateMachine>(inbox: &Inbox<S>, alarm: &mut Alarm) {
    poll_fn(|context| match inbox.poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => alarm.poll(context),
    })
    .await;
}

/// How many of these go into one batch.
fn batch_len<R>(proposals: &[Proposed<R>], max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = proposals.iter().take_while(|proposed| {
        bytes += ENTRY_HEADER + proposed.command.len();
        bytes <= max_bytes
    });
    fits.count().max(1)
}

/// Says that the node has stopped, however its driver ends: also when its runtime drops it, before it ever ran even.
pub(crate) struct LastWord<S: StateMachine> {
    shared: Arc<Shared<S>>,
    why: StopReason,
}

impl<S: StateMachine> LastWord<S> {
    pub(crate) const fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared, why: StopReason::Died }
    }

    fn say(&self) {
        let stopped = Stopped { why: self.why.clone() };
        let (node, group, why) = (self.shared.id, self.shared.group, &self.why);
        self.shared.inbox.close(&stopped);
        let first = self.shared.stopped.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(stopped);
            first
        });
        match why {
            _ if !first => {}
            StopReason::Shutdown | StopReason::Dropped => info!(%node, %group, %why, "stopped"),
            StopReason::Storage(_)
            | StopReason::NoSnapshot { .. }
            | StopReason::Panicked { .. }
            | StopReason::Died => {
                error!(%node, %group, %why, "stopped");
            }
        }
    }
}

impl<S: StateMachine> Drop for LastWord<S> {
    fn drop(&mut self) {
        self.say();
        self.shared.ended.send_replace(true);
    }
}
