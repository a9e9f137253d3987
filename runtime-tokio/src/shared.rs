//! What handles, driver, threads and transport share, and how a request finds its way from there.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{
    Body, ChangeError, GroupId, Index, Input, LogId, Message, NodeId, RoleKind, Snapshot, StateMachine, Term,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{self, Instant, timeout_at},
};
use tracing::{Instrument as _, debug, warn};

use crate::{
    admission::Admission,
    apply::{Closure, Read, Ticket},
    compare::{Divergence, Online, Report, accepted},
    consistency::Consistency,
    control::{Control, Verdict, Wish},
    error::{ControlError, ProposeError, ReadError, Refusal, SnapshotError, StopReason, Stopped},
    feed::{Feed, NodeLog, Recent},
    forward,
    host::{self, Port},
    inbox::{Answer, Inbox, Limits, Look},
    metrics::{Failure, GroupSample, Meter, QueueSample},
    snapshots::{self, Inlet, Local, Ways},
    status::{Counters, Leadership, Progress, count},
    sync::atomic::AtomicUsize,
    trace::Request,
    transport::{BoxFuture, BoxStream, ForwardError, Transport},
};

/// What handles, driver, threads and transport share.
pub(crate) struct Shared<S: StateMachine> {
    pub(crate) host: Arc<host::Shared>,
    pub(crate) group: GroupId,
    pub(crate) inbox: Inbox<S>,
    pub(crate) counters: Counters,
    pub(crate) meter: Arc<Meter>,
    /// Goes up whenever the driver has done something: nothing is different as long as it doesn't.
    turns: AtomicU64,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Wakes requests that wait for another leader, in the order in which they came: those who watch a channel are woken in
    /// any order, and with virtual time a run must be the same each time.
    pub(crate) led: Notify,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stopped: watch::Sender<Option<Stopped>>,
    /// Proposals of this node's callers that wait for an outcome.
    admission: Arc<Admission>,
    /// Compares this replica with the others, if it is to. Set before anything arrives.
    pub(crate) online: OnceLock<Arc<Online>>,
    /// What that has found.
    pub(crate) divergences: watch::Sender<Vec<Divergence>>,
    /// What feeds are told from.
    pub(crate) recent: Arc<Recent>,
    /// Reads that wait for an answer.
    reads: Arc<AtomicUsize>,
    /// Bytes of commands on their way to another node, or waiting for one that leads.
    elsewhere: Arc<AtomicUsize>,
    /// Up to here the state machine is, as the core knows.
    pub(crate) applied: AtomicU64,
    /// All threads have ended.
    pub(crate) ended: watch::Sender<bool>,
    request_timeout: Duration,
    /// Set when the node is put together, if it is recorded.
    #[cfg(feature = "record")]
    pub(crate) tape: OnceLock<Arc<crate::record::Tape>>,
}

impl<S: StateMachine> Shared<S> {
    pub(crate) fn new(
        group: GroupId,
        limits: Limits,
        host: Arc<host::Shared>,
        request_timeout: Duration,
        feed_bytes: usize,
    ) -> Arc<Self> {
        let leadership = Leadership { term: Term(0), leader: None, role: RoleKind::Follower };
        let meter = host.meters.of(group);
        Arc::new_cyclic(|shared| Self {
            host,
            group,
            inbox: Inbox::new(limits),
            counters: Counters::default(),
            meter,
            turns: AtomicU64::new(0),
            leadership: watch::Sender::new(leadership),
            led: Notify::new(),
            progress: watch::Sender::new(Progress {
                leadership,
                last: Index(0),
                durable: Index(0),
                commit: Index(0),
                applied: Index(0),
            }),
            stopped: watch::Sender::new(None),
            admission: Admission::new(request_timeout),
            online: OnceLock::new(),
            divergences: watch::Sender::new(Vec::new()),
            // Where it begins is said when that is known.
            recent: Arc::new(Recent::new(Index(0), feed_bytes, NodeLog::new(shared.clone()))),
            reads: Arc::default(),
            elsewhere: Arc::default(),
            applied: AtomicU64::new(0),
            ended: watch::Sender::new(false),
            request_timeout,
            #[cfg(feature = "record")]
            tape: OnceLock::new(),
        })
    }

    pub(crate) fn id(&self) -> NodeId {
        self.host.id
    }

    /// The driver has something to do.
    pub(crate) fn turned(&self) {
        self.turns.fetch_add(1, Relaxed);
    }

    /// [`Node::propose`](crate::Node::propose).
    pub(crate) async fn propose(&self, command: Bytes) -> Result<S::Reply, ProposeError> {
        let begun = Instant::now();
        let request = Request::propose(self.id(), self.group, command.len());
        let result = self.propose_in(&request, command).instrument(request.span.clone()).await;
        match &result {
            Ok(_) => {
                self.meter.replied(begun.elapsed());
                request.ended("done");
            }
            Err(error) => {
                let failure = Failure::from(error);
                self.meter.failed(failure);
                request.ended(failure.name());
            }
        }
        result
    }

    async fn propose_in(&self, request: &Request, command: Bytes) -> Result<S::Reply, ProposeError> {
        let leader = self.leadership.borrow().leader;
        let _admitted = self.admission.admit(leader).map_err(|waited| {
            count(&self.counters.overloaded, 1);
            let what = format!("overloaded: the oldest proposal has been waiting for {waited:?}");
            ProposeError::Overloaded { what }
        })?;
        let mut attempts = Attempts::new(self.request_timeout);
        let mut hint = None;
        let mut ticket = None;
        loop {
            let leader = hint.take().or_else(|| self.leadership.borrow().leader);
            let elsewhere = leader.filter(|leader| *leader != self.id());
            // The inbox bounds what this node proposes itself; this, what it holds for others, or until one leads.
            if (elsewhere.is_some() || leader.is_none()) && ticket.is_none() {
                ticket = Some(self.hold(command.len())?);
            }
            let result = match elsewhere {
                Some(leader) => match self.forward(request, leader, &command, attempts.deadline).await {
                    Ok(reply) => return read_reply(reply),
                    Err(refusal) => Err(refusal),
                },
                None => {
                    let here = self.propose_here(request, command.clone(), attempts.deadline);
                    here.await.map_err(Retry::Refused)
                }
            };
            let last = match result {
                Ok(reply) => return Ok(reply),
                Err(Retry::Refused(Refusal::NotLeader(other))) => {
                    let asked = elsewhere.unwrap_or(self.id());
                    hint = other.filter(|other| *other != asked);
                    format!("node {asked} does not lead")
                }
                // It will lead in a moment, but doesn't yet.
                Err(Retry::Refused(Refusal::Transferring(to))) => {
                    format!("leadership is being handed over to node {to}")
                }
                Err(Retry::NotDelivered(why)) => why,
                Err(Retry::Refused(refusal)) => return Err(self.propose_error(refusal)),
            };
            if !attempts.another(hint.is_some(), &self.led).await {
                return Err(ProposeError::NoLeader { waited: self.request_timeout, last });
            }
        }
    }

    /// Counts a command that may wait for another node.
    fn hold(&self, bytes: usize) -> Result<Ticket, ProposeError> {
        // What surrounds a small command is more than the command.
        let weight = bytes.max(512);
        let bound = self.inbox.limits().proposal_bytes.max(512);
        Ticket::take(&self.elsewhere, weight, bound).ok_or_else(|| {
            count(&self.counters.overloaded, 1);
            let what = format!("overloaded: bytes waiting for the leader would pass their bound of {bound}");
            ProposeError::Overloaded { what }
        })
    }

    /// Proposes to this node's own core.
    async fn propose_here(
        &self,
        request: &Request,
        command: Bytes,
        deadline: Instant,
    ) -> Result<S::Reply, Refusal> {
        let (answer, outcome) = oneshot::channel();
        self.inbox.propose(command, Answer::new(answer, request.replicate()))?;
        let refusal = match timeout_at(deadline, outcome).await {
            Ok(Ok(Ok(reply))) => return Ok(reply),
            Ok(Ok(Err(refusal))) => refusal,
            Ok(Err(_dropped)) => Refusal::Unknown(self.why().to_string()),
            Err(_elapsed) => Refusal::Unknown(format!(
                "node {} had not applied it after {:?}",
                self.id(),
                self.request_timeout
            )),
        };
        Err(refusal)
    }

    /// Hands a command on to the leader.
    async fn forward(
        &self,
        request: &Request,
        leader: NodeId,
        command: &[u8],
        deadline: Instant,
    ) -> Result<Bytes, Retry> {
        if let Some(stopped) = self.inbox.closed() {
            return Err(Refusal::Stopped(stopped).into());
        }
        let Some(transport) = &self.host.transport else {
            return Err(Retry::NotDelivered(format!("no transport to reach node {leader} with")));
        };
        count(&self.counters.forwarded, 1);
        self.meter.forwarded();
        let (span, trace) = request.forward(leader);
        let request = forward::encode_request(command, trace);
        let answer = transport.forward(self.group, leader, request).instrument(span);
        let answer = match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ ForwardError::NotDelivered { .. })) => {
                // If the group sleeps nobody else would notice that its leader is gone.
                self.inbox.touch(leader, true);
                return Err(Retry::NotDelivered(error.to_string()));
            }
            // The leader is there: it is not looked for, and this is not tried again.
            Ok(Err(error @ ForwardError::Busy { .. })) => {
                return Err(Refusal::Overloaded(format!("overloaded: {error}")).into());
            }
            Ok(Err(error @ ForwardError::Unknown { .. })) => {
                return Err(Refusal::Unknown(error.to_string()).into());
            }
            Err(_elapsed) => {
                let why = format!("node {leader} had not answered after {:?}", self.request_timeout);
                return Err(Refusal::Unknown(why).into());
            }
        };
        match forward::decode_answer(answer) {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(error) => {
                warn!(node = %self.id(), group = %self.group, %leader, %error, "unreadable answer to a proposal");
                Err(Refusal::Unknown(format!("the answer of node {leader} can't be read: {error}")).into())
            }
        }
    }

    /// [`Node::read_with`](crate::Node::read_with); `read` is told how far the state machine is, too.
    pub(crate) async fn read<F, R>(&self, mut read: F, consistency: Consistency) -> Result<R, ReadError>
    where
        F: FnOnce(&S, &Snapshot) -> R + Send + 'static,
        R: Send + 'static,
    {
        let mut attempts = Attempts::new(self.request_timeout);
        let begun = Instant::now();
        let no_leader =
            |last: &str| ReadError::NoLeader { waited: self.request_timeout, last: last.to_owned() };
        loop {
            let bound = self.inbox.limits().pending;
            let Some(ticket) = Ticket::take(&self.reads, 1, bound) else {
                self.overloaded();
                let what = format!("overloaded: pending reads would pass their bound of {bound}");
                return Err(ReadError::Overloaded { what });
            };
            // Before the channel, and so dropped after it: who is told that nobody waits finds that it is so.
            let mut waits = Waits(matches!(consistency, Consistency::AtLeast(_)).then_some(&self.inbox));
            let (answer, outcome) = oneshot::channel();
            self.inbox.read(Box::new(Closure { read, answer, ticket }), consistency);
            let outcome = timeout_at(attempts.deadline, outcome).await;
            if outcome.is_ok() {
                waits.0 = None;
            }
            let refusal = match outcome {
                Ok(Ok(Read::Done(result))) => {
                    self.meter.answered(begun.elapsed());
                    return Ok(result);
                }
                Ok(Ok(Read::Panicked(message))) => return Err(ReadError::Panicked { message }),
                Ok(Ok(Read::Refused(unread, refusal))) => {
                    read = unread;
                    refusal
                }
                Ok(Err(_dropped)) => return Err(ReadError::Stopped(self.why())),
                Err(_elapsed) if consistency == Consistency::Stale => {
                    return Err(ReadError::Behind { waited: self.request_timeout });
                }
                Err(_elapsed) => return Err(no_leader("no quorum, or a state machine that lags")),
            };
            match refusal {
                // A read changes nothing: whatever became of it, it may be tried again.
                Refusal::NotLeader(_) | Refusal::Transferring(_) | Refusal::Unknown(_) => {}
                Refusal::Overloaded(what) => {
                    self.overloaded();
                    return Err(ReadError::Overloaded { what });
                }
                Refusal::Stopped(stopped) => return Err(ReadError::Stopped(stopped)),
                Refusal::TooBig { .. } => return Err(ReadError::Refused { why: "too big".into() }),
                Refusal::Other(why) => return Err(ReadError::Refused { why }),
            }
            if !attempts.another(false, &self.led).await {
                return Err(no_leader("no leader is known"));
            }
        }
    }

    /// A request about the cluster itself, made of this node: it is not handed on.
    pub(crate) async fn control(&self, wish: Wish) -> Verdict {
        let verdict = self.control_here(wish).await;
        if let Err(ControlError::Overloaded { .. }) = &verdict {
            self.overloaded();
        }
        verdict
    }

    async fn control_here(&self, wish: Wish) -> Verdict {
        let mut attempts = Attempts::new(self.request_timeout);
        loop {
            let (answer, outcome) = oneshot::channel();
            let control = Control { wish: wish.clone(), answer };
            self.inbox.control(control).map_err(|refusal| match refusal {
                Refusal::Stopped(stopped) => ControlError::Stopped(stopped),
                Refusal::Overloaded(what) => ControlError::Overloaded { what },
                refusal => ControlError::Refused { why: format!("{refusal:?}") },
            })?;
            let unknown = |why| Err(ControlError::Unknown { why });
            let verdict = match timeout_at(attempts.deadline, outcome).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(_dropped)) => return unknown(self.why().to_string()),
                Err(_elapsed) => {
                    return unknown(format!("it had not ended after {:?}", self.request_timeout));
                }
            };
            // A leader that has just been elected learns within a round trip what it needs to know first.
            let early = matches!(verdict, Err(ControlError::Membership(ChangeError::Early { .. })));
            if !early || !attempts.another(false, &self.led).await {
                return verdict;
            }
        }
    }

    fn propose_error(&self, refusal: Refusal) -> ProposeError {
        match refusal {
            // Tried again, so it doesn't come to this.
            Refusal::NotLeader(_) | Refusal::Transferring(_) => {
                ProposeError::NoLeader { waited: self.request_timeout, last: "not the leader".into() }
            }
            Refusal::Overloaded(what) => {
                count(&self.counters.overloaded, 1);
                ProposeError::Overloaded { what }
            }
            Refusal::TooBig { bytes, bound } => ProposeError::TooBig { bytes, bound },
            Refusal::Other(why) => ProposeError::Refused { why },
            Refusal::Stopped(stopped) => ProposeError::Stopped(stopped),
            Refusal::Unknown(why) => ProposeError::Unknown { why },
        }
    }

    /// [`Node::subscribe`](crate::Node::subscribe).
    pub(crate) fn subscribe(&self, from: Index) -> Feed {
        Feed::new(self.recent.clone(), from)
    }

    /// A look at the protocol's state, as it is when the driver has taken up all that waits now.
    ///
    /// # Errors
    /// If the node has stopped.
    pub(crate) async fn look(&self) -> Result<Look, Stopped> {
        loop {
            let (question, answer) = oneshot::channel();
            match self.inbox.ask(question) {
                Ok(()) => return answer.await.map_err(|_dropped| self.why()),
                Err(Refusal::Stopped(stopped)) => return Err(stopped),
                // The queue is full, but not for long: the driver empties it whenever it runs.
                Err(_full) => tokio::task::yield_now().await,
            }
        }
    }

    /// [`Node::shutdown`](crate::Node::shutdown).
    pub(crate) async fn stop_and_wait(&self) {
        self.inbox.stop(StopReason::Shutdown);
        // The sender lives here: it can't go away before it has said so.
        let mut ended = self.ended.subscribe();
        let _ended = ended.wait_for(|ended| *ended).await;
    }

    /// How to open streams to the others of the group.
    pub(crate) fn ways(&self) -> Option<Arc<dyn Ways>> {
        let transport = self.host.transport.clone()?;
        Some(Arc::new(Streams { transport, group: self.group }))
    }

    /// [`Node::snapshot`](crate::Node::snapshot).
    pub(crate) async fn snapshot(&self) -> Result<LogId, SnapshotError> {
        let (answer, outcome) = oneshot::channel();
        self.inbox.snapshot(answer).map_err(|refusal| match refusal {
            Refusal::Stopped(stopped) => SnapshotError::Stopped(stopped),
            Refusal::Overloaded(what) => {
                self.overloaded();
                SnapshotError::Overloaded { what }
            }
            refusal => SnapshotError::Failed { why: format!("{refusal:?}") },
        })?;
        outcome.await.unwrap_or_else(|_dropped| Err(SnapshotError::Stopped(self.why())))
    }

    /// A request that is no proposal ends as overloaded. Proposals have a count of all that they end in.
    fn overloaded(&self) {
        count(&self.counters.overloaded, 1);
        self.meter.overloaded();
    }

    /// A message has found the inbox full.
    fn message_dropped(&self) {
        count(&self.counters.messages_dropped, 1);
        self.meter.message_dropped();
    }

    /// Why the node has stopped; to be asked when it has.
    pub(crate) fn why(&self) -> Stopped {
        self.inbox.closed().unwrap_or(Stopped { why: StopReason::Died })
    }
}

impl<S: StateMachine> Inlet for Shared<S> {
    fn applied(&self) -> Index {
        Index(self.applied.load(Relaxed))
    }

    fn deliver(&self, from: NodeId, message: Message) {
        if !self.inbox.receive(from, message) {
            // Its leader finds out when it probes, and offers the snapshot again.
            self.message_dropped();
        }
    }
}

/// The way to the others of a group.
struct Streams {
    transport: Arc<dyn Transport>,
    group: GroupId,
}

impl Ways for Streams {
    fn open(&self, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        self.transport.open(self.group, to)
    }
}

impl<S: StateMachine> Port for Shared<S> {
    fn receive(&self, from: NodeId, message: Message) {
        if matches!(message.body, Body::InstallSnapshot { .. }) {
            // The core may hear of a snapshot when its bytes are staged, and not before: it comes on their stream.
            count(&self.counters.messages_refused, 1);
            self.meter.message_refused();
            let (node, group) = (self.id(), self.group);
            return warn!(%node, %group, %from, "a message that announces a snapshot without its bytes");
        }
        if !self.inbox.receive(from, message) {
            self.message_dropped();
        }
    }

    fn unreachable(&self, peer: NodeId) {
        self.inbox.touch(peer, true);
    }

    fn reachable(&self, peer: NodeId) {
        self.inbox.touch(peer, false);
    }

    fn forwarded(self: Arc<Self>, from: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move {
            if Report::is_one(&request) {
                // Who doesn't compare, not yet maybe, has nothing to say to it.
                return Ok(self.online.get().map_or_else(accepted, |online| online.take(from, &request)));
            }
            let answer = match forward::decode_request(request) {
                Ok((command, trace)) => {
                    // It is not handed on again: whoever sent it here learns who leads and tries there.
                    let deadline = Instant::now() + self.request_timeout;
                    let request = Request::serve(self.id(), self.group, from, command.len(), trace);
                    let span = request.span.clone();
                    let here = self.propose_here(&request, command, deadline).instrument(span);
                    here.await.map(Into::into)
                }
                Err(error) => {
                    warn!(node = %self.id(), group = %self.group, %from, %error, "forwarded request refused");
                    Err(Refusal::Other(format!("node {} can't read the request: {error}", self.id())))
                }
            };
            Ok(forward::encode_answer(answer))
        })
    }

    fn opened(self: Arc<Self>, from: NodeId, stream: BoxStream) {
        let (Some(lanes), Some(ways)) = (self.host.lanes(), self.ways()) else {
            return debug!(node = %self.id(), group = %self.group, %from, "stream dropped: the host is closed");
        };
        let local = Local {
            desk: self.host.desk.clone(),
            meter: self.meter.clone(),
            id: self.id(),
            group: self.group,
            store: lanes.snapshots,
            inlet: self.clone(),
            ways,
        };
        let mut stopped = self.stopped.subscribe();
        drop(self.host.runtime.spawn(async move {
            tokio::select! {
                () = snapshots::serve(&local, from, stream) => {}
                _stopped = stopped.wait_for(Option::is_some) => {}
            }
        }));
    }

    fn input(&self, input: Input) {
        self.inbox.input(input);
    }

    fn fail(&self, why: StopReason) {
        self.inbox.stop(why);
    }

    fn shutdown(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move { self.stop_and_wait().await })
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }

    fn sample(self: Arc<Self>) -> BoxFuture<Option<GroupSample>> {
        Box::pin(async move {
            let (question, answer) = oneshot::channel();
            // A group that is stopping, or is asked too much, is looked at another time.
            self.inbox.ask(question).ok()?;
            let look = answer.await.ok()?;
            let depth = self.inbox.depth();
            let queues = QueueSample {
                proposals: depth.proposals as u64,
                proposal_bytes: depth.proposal_bytes as u64,
                reads: self.reads.load(Relaxed) as u64,
                messages: depth.messages as u64,
                message_bytes: depth.message_bytes as u64,
                apply: look.apply as u64,
            };
            Some(GroupSample::new(&look.raft, queues))
        })
    }
}

/// Why a command was not replicated by whoever was asked.
enum Retry {
    /// It said so.
    Refused(Refusal),
    /// It could not be reached.
    NotDelivered(String),
}

impl From<Refusal> for Retry {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A read for an index, while it waits: given up, it tells the driver, for that index may never come.
struct Waits<'a, S: StateMachine>(Option<&'a Inbox<S>>);

impl<S: StateMachine> Drop for Waits<'_, S> {
    fn drop(&mut self) {
        if let Some(inbox) = self.0 {
            inbox.given_up();
        }
    }
}

fn read_reply<R: TryFrom<Bytes, Error: std::fmt::Display>>(reply: Bytes) -> Result<R, ProposeError> {
    R::try_from(reply).map_err(|error| ProposeError::Reply { why: error.to_string() })
}

/// The attempts of one request, and the pauses between them.
struct Attempts {
    deadline: Instant,
    pause: Duration,
    hurried: bool,
}

impl Attempts {
    /// A leader that was just lost is replaced in about an election timeout: to ask much more often helps nobody.
    const MAX_PAUSE: Duration = Duration::from_millis(100);

    fn new(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, pause: Duration::from_millis(5), hurried: false }
    }

    /// Waits before another attempt: not at all if somebody new is known to `ask_at_once` (but not twice in a row, or two
    /// nodes that take each other for the leader would be asked in turn without end); else until another leader is
    /// known, or for a while. `false` if there is no time left.
    async fn another(&mut self, ask_at_once: bool, led: &Notify) -> bool {
        if ask_at_once && !self.hurried {
            self.hurried = true;
            return true;
        }
        self.hurried = false;
        let until = Instant::now() + self.pause;
        if until >= self.deadline {
            return false;
        }
        self.pause = (self.pause * 2).min(Self::MAX_PAUSE);
        let _changed_or_elapsed = time::timeout_at(until, led.notified()).await;
        true
    }
}
