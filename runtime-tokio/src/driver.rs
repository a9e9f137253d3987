//! The one task that owns a `Raft`: it takes up all that waits, steps, does what the core asks for, and sleeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
    vec::Drain,
};

use quorate_core::{
    Action, Apply, Batch, ENTRY_HEADER, Event, Index, Input, Instant, Message, NodeId, Outcome, Proposal,
    ReadKind, Reason, Rejected, RoleKind, Run, StateMachine, Token, Tokens,
};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::{
    alarm::Alarm,
    apply::{Job, Reading},
    control::{Controls, Handover},
    error::{Refusal, StopReason, Stopped},
    health::DiskHealth,
    host::{self, Host, NoPlace, Place},
    inbox::{Answer, Inbox, Look, Proposed, Touch, Work},
    lane,
    recorded::Recorded,
    shared::Shared,
    snapshots::Keeper,
    status::{Leadership, Progress, count},
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
    pub(crate) snapshots: Keeper,
    /// A batch of proposals is at most this big, unless it is of one.
    pub(crate) batch_bytes: usize,
    /// How long a shutdown waits for requests under way.
    pub(crate) drain_timeout: Duration,
    pub(crate) proposals: Waiters<Answer<S::Reply>>,
    pub(crate) reads: Reads<S>,
    pub(crate) controls: Controls,
    /// Peers that the transport has lost touch with, and that have not been heard since.
    pub(crate) lost: BTreeSet<NodeId>,
    pub(crate) disk: DiskHealth,
    /// With many groups, heartbeats are due at multiples of this, in µs.
    pub(crate) beat: u64,
    /// When the last work was taken up.
    pub(crate) now: Instant,
    /// The last index handed to apply, and the last applied.
    pub(crate) handed: Index,
    pub(crate) applied: Index,
    pub(crate) stopping: Option<Stopping>,
}

/// The queues of those who do what the core asks for.
pub(crate) struct Lanes<S: StateMachine> {
    /// Those of the host.
    pub(crate) store: host::Lanes,
    /// That of the state machine, which ends when this is let go of.
    pub(crate) jobs: lane::Sender<Job<S>>,
    /// Tells it not to finish what it has.
    pub(crate) quit: Arc<AtomicBool>,
}

/// Reads that wait for a read index. Those that came together wait together.
pub(crate) struct Reads<S> {
    next: u64,
    waiting: Waiting<S>,
    /// Those that wait for an index, which may never come.
    at_least: Waiting<S>,
}

type Waiting<S> = BTreeMap<Token, Vec<Box<dyn Reading<S>>>>;

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
        let mut alarm = Alarm::new(self.shared.host.clock);
        let mut work = Work::new();
        self.miss_absent();
        self.act();
        let why = loop {
            self.hand_over();
            self.publish();
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
                    self.shared.turned();
                    self.step(Input::Tick);
                    self.act();
                }
            }
            self.watch_disk();
            // A node with much to do lets others on its worker run as well.
            tokio::task::coop::consume_budget().await;
        };
        self.resolve_all(&why);
        self.resign();
        #[cfg(feature = "record")]
        self.raft.stopped(&why);
        self.last_word.why = why;
        self.last_word.say();
        let last_word = self.dissolve();
        ended.wait().await;
        last_word.let_go().await;
    }

    /// Lets go of the threads' queues, which ends them.
    fn dissolve(self) -> LastWord<S> {
        self.last_word
    }

    fn wake_at(&self) -> Option<Instant> {
        let until = self.stopping.as_ref().map(|stopping| stopping.until);
        let snapshot = self.snapshots.wake_at(self.now);
        self.deadline().into_iter().chain(until).chain(self.stall_due()).chain(snapshot).min()
    }

    /// When the core is to hear that time has passed. Of many groups at one host the heartbeats are due at the same moments,
    /// so that those to one peer travel together.
    fn deadline(&self) -> Option<Instant> {
        let (at, reason) = self.raft.deadline()?;
        if reason != Reason::Heartbeat || !self.shared.host.groups.many() {
            return Some(at);
        }
        Some(Instant(at.0.div_ceil(self.beat).saturating_mul(self.beat)))
    }

    /// By how much that has passed, if it has.
    fn due(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        (deadline <= self.now).then(|| Duration::from_micros(self.now.since(deadline)))
    }

    /// Takes up all that waits, and does what follows from it.
    fn take_up(&mut self, work: &mut Work<S>) {
        self.shared.inbox.take(work);
        if !work.changes_nothing() {
            self.shared.turned();
        }
        // After taking it up, never before: no message may seem to come earlier than it did.
        self.now = self.shared.host.clock.now();
        for input in work.inputs.drain(..) {
            let durable = if let Input::Persisted(receipt) = &input { Some(receipt.seq()) } else { None };
            if let Some(seq) = durable {
                self.disk.persisted(seq, self.now);
            }
            self.step(input);
            if let Some(seq) = durable {
                self.snapshots.durable(seq);
            }
        }
        if let Some(up_to) = work.applied.take() {
            self.applied = up_to;
            self.step(Input::Applied { up_to });
            self.shared.applied.store(up_to.0, Relaxed);
            self.snapshots.applied(up_to);
        }
        for news in work.news.drain(..) {
            self.hear(news);
        }
        count(&self.shared.counters.messages, work.messages.len());
        for (n, (from, message)) in work.messages.drain(..).enumerate() {
            self.receive(from, message);
            if n % MESSAGES_AT_ONCE == MESSAGES_AT_ONCE - 1 {
                self.act();
            }
        }
        // After the messages, for those of a link that was lost came before its loss. Were that told first, then an old word of
        // the leader would count as touch with it, and let this node sleep by the leave of one that is gone: nobody would
        // say so again. A message that came by a new link is taken for an older one here. No harm: the transport has said,
        // or will say, that there is touch, and so does the next message. Nor does it matter that touch is told after what came
        // by it: whoever was lost and is heard is in touch by that.
        for (peer, touch) in std::mem::take(&mut work.touch) {
            if touch != Touch::Found {
                self.lost_touch(peer);
            }
            if touch != Touch::Lost {
                self.in_touch(peer);
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
        if std::mem::take(&mut work.given_up) {
            self.give_up_reads();
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
        self.snapshots.asked(work.snapshots.drain(..));
        self.act();
        self.keep_snapshots();
        for question in work.questions.drain(..) {
            let _gone = question.send(Look { raft: self.raft.status(), apply: self.lanes.jobs.len() });
        }
    }

    fn receive(&mut self, from: NodeId, message: Message) {
        // Lookup only: nearly always there is nobody in it.
        if !self.lost.is_empty() && self.lost.contains(&from) {
            self.in_touch(from);
        }
        self.shared.meter.received(message.class());
        if let Err(rejected) = self.raft.step(self.now, Input::Receive { from, message }) {
            self.refused(from, &rejected);
        }
    }

    fn refused(&self, from: NodeId, rejected: &Rejected) {
        count(&self.shared.counters.messages_refused, 1);
        self.shared.meter.message_refused();
        let (node, group) = (self.shared.id(), self.shared.group);
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
        } else if !matches!(rejected, Rejected::StaleLoad | Rejected::StaleSend | Rejected::Stopped) {
            warn!(node = %self.shared.id(), group = %self.shared.group, %rejected, "the core refused an input");
        }
    }

    /// Proposes what came together together: consecutive tokens, one block, one write.
    fn propose(&mut self, mut proposals: Drain<'_, Proposed<S::Reply>>) {
        while !proposals.as_slice().is_empty() {
            let n = batch_len(proposals.as_slice(), self.batch_bytes);
            let commands = proposals.as_slice().get(..n).unwrap_or_default();
            let proposal = Proposal::new(self.proposals.next(), Batch::from(commands));
            let answers = proposals.by_ref().take(n).map(|proposed| proposed.answer);
            let before = self.raft.last().index;
            match self.raft.step(self.now, Input::Propose(proposal)) {
                Ok(()) => {
                    let (term, taken) = (self.raft.term(), self.now);
                    self.proposals.extend(answers.zip(1..).map(|(mut answer, place)| {
                        answer.taken = taken;
                        answer.stages.appended(term, before.plus(place));
                        answer
                    }));
                    self.shared.meter.proposed(n);
                    count(&self.shared.counters.proposals, n);
                    count(&self.shared.counters.batches, 1);
                    // Its write is on its way, and counts, before the next batch is looked at.
                    self.act();
                }
                Err(rejected) => {
                    for answer in answers {
                        answer.send(Err(rejected.into()));
                    }
                }
            }
        }
    }

    /// One read index serves all the reads of a kind that came together.
    fn read(&mut self, kind: ReadKind, reads: &mut Vec<Box<dyn Reading<S>>>) {
        // As of proposals.
        reads.retain(|read| !read.is_closed());
        if reads.is_empty() {
            return;
        }
        let token = self.reads.take_token();
        match self.raft.step(self.now, Input::Read { token, kind }) {
            Ok(()) => {
                self.shared.meter.asked(reads.len());
                count(&self.shared.counters.reads, reads.len());
                count(&self.shared.counters.read_batches, 1);
                let at_least = matches!(kind, ReadKind::AtLeast(_));
                let Reads { waiting, at_least: patient, .. } = &mut self.reads;
                let waiting = if at_least { patient } else { waiting };
                waiting.insert(token, std::mem::take(reads));
            }
            Err(rejected) => reads.drain(..).for_each(|read| read.refuse(rejected.into())),
        }
    }

    /// Lets go of the reads for an index that nobody waits for any more. Else those whose index never comes would fill the
    /// core's bound and ours, until no read is taken any more.
    fn give_up_reads(&mut self) {
        for token in self.reads.let_go() {
            // Its outcome clears away what is left of it, whether it comes of this or was on its way already.
            self.step(Input::CancelRead { token });
        }
    }

    /// Does what the core asks for. All of it is only handed on: nothing here waits.
    pub(crate) fn act(&mut self) {
        while let Some(action) = self.raft.poll() {
            match action {
                Action::Send { to, message } => {
                    self.shared.meter.sent(message.class());
                    if let Some(transport) = &self.shared.host.transport {
                        transport.send(self.shared.group, to, message);
                    }
                }
                // A lane that has ended has said why, and the node is about to stop.
                Action::Write(write) => {
                    self.snapshots.writing(&write);
                    self.disk.sent(write.seq(), self.now);
                    drop(self.lanes.store.writes.send(host::Job::Write(write)));
                }
                Action::Load(load) => {
                    let (group, port) = (self.shared.group, self.shared.clone());
                    let question = host::Question { group, load, port, asker: host::Asker::Core };
                    drop(self.lanes.store.loads.send(question));
                }
                Action::Apply(apply) => self.apply(apply),
                Action::Restore(snapshot) => {
                    self.handed = snapshot.last.index;
                    let store = self.lanes.store.snapshots.clone();
                    self.hand_to_apply(Job::Restore { snapshot, store });
                }
                Action::SendSnapshot(send) => self.send_snapshot(send),
                Action::Resolve { tokens, outcome } => self.resolve(tokens, outcome),
                Action::Event(event) => {
                    self.tell(&event);
                    self.snapshots.event(&event);
                    if matches!(event, Event::Membership { .. }) {
                        self.miss_absent();
                    }
                    if matches!(event, Event::Transfer { to: None }) {
                        self.transfer_ended();
                        self.transfer_for_health_ended();
                    }
                }
            }
        }
    }

    fn apply(&mut self, apply: Apply) {
        self.handed = apply.last();
        self.snapshots.handed(apply.last(), apply.entries.iter().map(Run::bytes).sum());
        let mut waiting = Vec::new();
        for done in &apply.done {
            self.proposals.take(done.tokens, |place, mut answer| {
                answer.stages.committed();
                waiting.push((done.first.plus(place), answer));
            });
        }
        // Those that were proposed together have waited equally long.
        for together in waiting.chunk_by(|(_, a), (_, b)| a.taken == b.taken) {
            let taken = together.first().map_or(self.now, |(_, answer)| answer.taken);
            let after = Duration::from_micros(self.now.since(taken));
            self.shared.meter.committed(after, together.len());
        }
        self.hand_to_apply(Job::Apply { entries: apply.entries, waiting, handed: self.now });
    }

    fn hand_to_apply(&self, job: Job<S>) {
        // If the thread has ended the job is dropped, and whoever waits for it asks why.
        drop(self.lanes.jobs.send(job));
    }

    fn resolve(&mut self, tokens: Tokens, outcome: Outcome) {
        if tokens.first.0 >= FIRST_READ {
            for token in tokens.iter() {
                let Some(reads) = self.reads.remove(token) else {
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
            answer.send(Err(refusal));
        });
    }

    fn tell(&self, event: &Event) {
        let (node, group, meter) = (self.shared.id(), self.shared.group, &self.shared.meter);
        match event {
            Event::Role { role: RoleKind::Candidate, .. } => meter.stood(),
            Event::Role { role: RoleKind::Leader, .. } => meter.won(),
            Event::Leader { leader: Some(_), .. } => meter.led(),
            _ => {}
        }
        match event {
            Event::Role { term, role } => debug!(%node, %group, %term, ?role, "this node plays another part"),
            Event::Leader { term, leader: Some(leader) } => {
                info!(%node, %group, %term, %leader, "leader elected");
            }
            Event::Leader { term, leader: None } => {
                info!(%node, %group, %term, "no leader is known any more");
            }
            Event::Truncated { from, last } => {
                info!(%node, %group, %from, %last, "the end of the log was replaced by the leader's");
            }
            Event::Membership { index, membership } => {
                let (voters, learners) = (membership.voters(), membership.learners());
                info!(%node, %group, %index, ?voters, ?learners, joint = membership.is_joint(), "another membership is in force");
            }
            Event::Compacted { base } => debug!(%node, %group, %base, "the log was compacted"),
            Event::Installed { last } => info!(%node, %group, %last, "a snapshot was installed"),
            Event::Peer { id, mode } => {
                debug!(%node, %group, peer = %id, ?mode, "a peer is sent to in another way");
            }
            Event::Transfer { to: Some(to) } => info!(%node, %group, %to, "handing leadership over"),
            // How it ended is told with its outcome.
            Event::Transfer { to: None } => {}
            Event::Asleep => debug!(%node, %group, "the group sleeps"),
            Event::Awake => debug!(%node, %group, "the group is awake"),
            // The reason is told when the node stops.
            Event::Stopped => {}
        }
    }

    /// Tells those who watch what has changed.
    fn publish(&self) {
        let leadership = Leadership::of(&self.raft);
        if update(&self.shared.leadership, leadership) {
            self.shared.led.notify_waiters();
        }
        update(&self.shared.progress, Progress::of(&self.raft, self.applied));
    }

    /// A shutdown waits for what is under way; everything else is over at once.
    fn stop(&mut self, why: StopReason) {
        let drain = if why == StopReason::Shutdown { self.drain_timeout } else { Duration::ZERO };
        let until = self.now.plus(u64::try_from(drain.as_micros()).unwrap_or(u64::MAX));
        let failed = matches!(why, StopReason::Storage(_) | StopReason::Restore { .. });
        let handover = Handover::before(&why);
        match &mut self.stopping {
            // Dropping the handle hurries a shutdown, and does not rename it.
            Some(stopping) if why == StopReason::Dropped => stopping.until = until,
            // Asked again, it takes no longer, and goes on with handing over; and what has failed meanwhile is why.
            Some(_) if why == StopReason::Shutdown => {}
            stopping => *stopping = Some(Stopping { why, until, handover }),
        }
        if failed {
            // While it can still speak.
            self.resign();
            self.step(Input::StorageFailed);
        }
    }

    fn is_over(&self) -> Option<StopReason> {
        let stopping = self.stopping.as_ref()?;
        let answered = self.is_drained() && self.reads.at_least.is_empty() && self.handed <= self.applied;
        let idle = answered && stopping.handover == Handover::Over;
        (idle || stopping.until <= self.now).then(|| stopping.why.clone())
    }

    /// Nobody is left waiting.
    fn resolve_all(&mut self, why: &StopReason) {
        let stopped = Stopped { why: why.clone() };
        for answer in self.proposals.take_all() {
            answer.send(Err(Refusal::Unknown(stopped.to_string())));
        }
        self.abandon_controls(&stopped.to_string());
        let Reads { waiting, at_least, .. } = &mut self.reads;
        for read in [waiting, at_least].into_iter().flat_map(std::mem::take).flat_map(|(_, reads)| reads) {
            read.refuse(Refusal::Stopped(stopped.clone()));
        }
        self.snapshots.stop(&stopped);
        self.lanes.quit.store(true, Relaxed);
    }
}

impl<S> Reads<S> {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST_READ, waiting: BTreeMap::new(), at_least: BTreeMap::new() }
    }

    pub(crate) const fn take_token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    /// None waits but for an index.
    pub(crate) fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }

    fn remove(&mut self, token: Token) -> Option<Vec<Box<dyn Reading<S>>>> {
        self.waiting.remove(&token).or_else(|| self.at_least.remove(&token))
    }

    /// Drops those for an index that nobody waits for. Returns under which names none is left.
    fn let_go(&mut self) -> Vec<Token> {
        let left = self.at_least.iter_mut().filter_map(|(token, reads)| {
            reads.retain(|read| !read.is_closed());
            reads.is_empty().then_some(*token)
        });
        left.collect()
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

/// Tells those who watch, if it is something new; says whether it is.
fn update<T: PartialEq>(watched: &watch::Sender<T>, now: T) -> bool {
    watched.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    })
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

/// Says that the node has stopped, however its driver ends: also when its runtime drops it, before it ever ran even. And
/// gives back what it had at its host.
pub(crate) struct LastWord<S: StateMachine> {
    shared: Arc<Shared<S>>,
    why: StopReason,
    /// It was a node, for a while.
    opened: bool,
    /// What arrives finds it there.
    place: Option<Place>,
    /// The host, if it is there for this node alone.
    own: Option<Host>,
}

impl<S: StateMachine> LastWord<S> {
    pub(crate) const fn new(shared: Arc<Shared<S>>, place: Place, own: Option<Host>) -> Self {
        Self { shared, why: StopReason::Died, opened: false, place: Some(place), own }
    }

    /// What arrives is taken in from now on.
    pub(crate) fn open(&mut self) -> Result<(), NoPlace> {
        self.place.as_ref().ok_or(NoPlace::Closed)?.open(self.shared.clone())?;
        self.opened = true;
        Ok(())
    }

    fn say(&self) {
        let stopped = Stopped { why: self.why.clone() };
        let (node, group, why) = (self.shared.id(), self.shared.group, &self.why);
        self.shared.inbox.close(&stopped);
        let first = self.shared.stopped.send_if_modified(|known| {
            let first = known.is_none();
            let stopped = known.get_or_insert(stopped);
            if first {
                self.shared.recent.stop(stopped.clone());
                if let Some(online) = self.shared.online.get() {
                    online.stop();
                }
            }
            first
        });
        match why {
            // Why a start has failed, whoever wanted it learns.
            _ if !first || !self.opened => {}
            StopReason::Shutdown | StopReason::Dropped => info!(%node, %group, %why, "stopped"),
            StopReason::Storage(_)
            | StopReason::Restore { .. }
            | StopReason::StateMachine { .. }
            | StopReason::Panicked { .. }
            | StopReason::Died => {
                error!(%node, %group, %why, "stopped");
            }
        }
    }

    /// Nothing of this life is written or delivered any more.
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            if let Some(lanes) = self.shared.host.lanes() {
                drop(lanes.writes.send(host::Job::Close { group: self.shared.group }));
            }
            // After that: another life, if there is one, begins behind it.
            drop(place);
        }
    }

    /// Its threads have ended. Ends the host as well, if that is its own.
    async fn let_go(mut self) {
        self.leave();
        if let Some(host) = self.own.take() {
            host.shared.close().await;
        }
    }
}

impl<S: StateMachine> Drop for LastWord<S> {
    fn drop(&mut self) {
        self.say();
        self.leave();
        self.shared.ended.send_replace(true);
    }
}
