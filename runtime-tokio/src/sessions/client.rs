//! A client with a session: sends a command until it knows what has become of it.

use std::{
    collections::BTreeSet,
    fmt,
    marker::PhantomData,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use quorate_core::StateMachine;
use tokio::{
    sync::{Notify, futures::Notified},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    machine::Sessions,
    wire::{Command, Reply, SessionId},
};
use crate::{error::ProposeError, node::Node};

/// Whoever proposes for a client: a node of the group, or something that reaches one from afar.
pub trait Propose: Send + Sync {
    /// Why a proposal has no reply.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Has the cluster apply `command`, and returns what was replied.
    fn propose(&self, command: Command) -> impl Future<Output = Result<Reply, Self::Error>> + Send;

    /// What an error leaves open. To say that nothing happened when something did makes a client apply a command twice.
    fn failure(error: &Self::Error) -> Failure;
}

/// What is to be made of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The command may have been applied, or may yet be.
    pub maybe_applied: bool,
    /// There is a point in trying again.
    pub again: bool,
}

impl<M: StateMachine> Propose for Node<Sessions<M>> {
    type Error = ProposeError;

    async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        Self::propose(self, command).await
    }

    fn failure(error: &ProposeError) -> Failure {
        match error {
            ProposeError::NoLeader { .. } | ProposeError::Overloaded { .. } => {
                Failure { maybe_applied: false, again: true }
            }
            ProposeError::Unknown { .. } => Failure { maybe_applied: true, again: true },
            // The reply was kept, and is no more readable the next time.
            ProposeError::Reply { .. } => Failure { maybe_applied: true, again: false },
            ProposeError::TooBig { .. } | ProposeError::Refused { .. } | ProposeError::Stopped(_) => {
                Failure { maybe_applied: false, again: false }
            }
        }
    }
}

/// Why a command has no reply.
///
/// After [`SessionError::NotApplied`] and [`SessionError::Refused`] it certainly was not applied and never will be; after
/// [`SessionError::Unreadable`] it was; after the others nobody knows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError<E: std::error::Error + 'static> {
    /// Nobody took it in time. It was not applied.
    #[error("the command was not applied: nobody took it within {waited:?} ({last})")]
    NotApplied {
        /// How long was tried.
        waited: Duration,
        /// How the last attempt ended.
        last: String,
    },
    /// There is no point in trying again. It was not applied.
    #[error("the command was not applied: {0}")]
    Refused(#[source] E),
    /// The time is up, or there is no point in trying again, and an attempt may have succeeded, or may yet.
    #[error("it is unknown whether the command was or will be applied, after {waited:?} ({last})")]
    Unknown {
        /// How long was tried.
        waited: Duration,
        /// How the last attempt ended.
        last: String,
    },
    /// The session has expired between an attempt that may have succeeded and the next: it is not known any more whether the
    /// command was applied. It won't be from now on.
    #[error(
        "session {session} has expired: it is not known any more whether the command was applied ({last})"
    )]
    Expired {
        /// Which.
        session: SessionId,
        /// How the attempt before ended.
        last: String,
    },
    /// It was applied, but its reply can't be read.
    #[error("the command was applied, but its reply can't be read: {why}")]
    Unreadable {
        /// What the reply's `TryFrom<Bytes>` said.
        why: String,
    },
    /// What came back is no reply to this, such as when somebody else uses the same session.
    #[error("it is unknown whether the command was applied: an unexpected reply came back ({reply:?})")]
    Unexpected {
        /// What came back.
        reply: Reply,
    },
}

/// A client of a state machine with [`Sessions`], which has a session of its own: what it proposes is applied exactly once,
/// however often it has to be sent.
///
/// Many tasks may share one. How many commands may be under way together is said when the session is registered
/// ([`Limits::outstanding`](super::Limits::outstanding)); further ones wait for a place. Commands that are under way together
/// are applied in any order; one that is proposed after another's reply has come is applied after it.
///
/// A call may be given up by dropping its future: then it may still be applied, once.
pub struct Client<M, P = Node<Sessions<M>>> {
    proposer: P,
    state: Mutex<State>,
    /// Held by whoever registers: one at a time.
    registering: tokio::sync::Mutex<()>,
    /// A place has become free.
    room: Notify,
    timeout: Duration,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    machine: PhantomData<fn(M)>,
}

#[derive(Default)]
struct State {
    session: Option<Open>,
}

struct Open {
    id: SessionId,
    /// How far the newest command may be ahead of what is acknowledged.
    outstanding: u64,
    next: u64,
    /// Those that somebody waits for.
    waiting: BTreeSet<u64>,
}

impl Open {
    /// Nobody waits for any up to here.
    fn acknowledged(&self) -> u64 {
        self.waiting.first().copied().unwrap_or(self.next) - 1
    }
}

/// How one command fares.
struct Attempts {
    waited: Duration,
    deadline: Instant,
    pause: Duration,
    last: String,
}

/// How an attempt ended.
enum Ended<E> {
    Replied(Reply),
    Failed(E, Failure),
    /// It hadn't, when the time was up.
    Late,
}

impl<M: StateMachine, P: Propose> Client<M, P> {
    /// A client that proposes through `proposer`. It registers when it first has to.
    pub fn new(proposer: P) -> Self {
        Self {
            proposer,
            state: Mutex::default(),
            registering: tokio::sync::Mutex::default(),
            room: Notify::new(),
            timeout: Duration::from_secs(30),
            clock: Box::new(unix_ms),
            machine: PhantomData,
        }
    }

    /// How long a call may take, with all its attempts. Default 30 s: several of a node's own
    /// ([`Builder::request_timeout`](crate::Builder::request_timeout)), so that one lost answer is not the end.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What time it is, in ms, as [`Limits::idle`](super::Limits::idle) goes by. By default the system's, since 1970.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The session, if one is open as far as is known.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.lock().session.as_ref().map(|open| open.id)
    }

    /// Opens a session now rather than at the first command; does nothing if there is one.
    ///
    /// # Errors
    /// As [`SessionError`] says; one that was registered without its name being heard expires when others are used.
    pub async fn register(&self) -> Result<SessionId, SessionError<P::Error>> {
        self.open(&mut Attempts::new(self.timeout)).await
    }

    /// Has the cluster apply `command` once, and returns what the state machine replied.
    ///
    /// A session that has expired is replaced by a new one, and the command sent again, if none of its attempts before may
    /// have succeeded.
    ///
    /// # Errors
    /// As [`SessionError`] says.
    pub async fn propose(&self, command: impl Into<M::Command>) -> Result<M::Reply, SessionError<P::Error>> {
        let command: Bytes = command.into().into();
        let mut attempts = Attempts::new(self.timeout);
        loop {
            let place = self.place(&mut attempts).await?;
            if let Some(reply) = self.apply(&place, &command, &mut attempts).await? {
                return M::Reply::try_from(reply)
                    .map_err(|error| SessionError::Unreadable { why: error.to_string() });
            }
        }
    }

    /// Ends the session, if there is one. Commands under way may then end as [`SessionError::Expired`]; a later one opens a
    /// new session.
    ///
    /// # Errors
    /// As [`SessionError`] says: it expires in time all the same.
    pub async fn close(&self) -> Result<(), SessionError<P::Error>> {
        let Some(open) = self.lock().session.take() else { return Ok(()) };
        let mut attempts = Attempts::new(self.timeout);
        // To end it twice does no harm.
        let expire = || Command::Expire { session: open.id, time: (self.clock)() };
        match self.send(expire, &mut attempts, &mut false).await? {
            Reply::Expired => Ok(()),
            reply => Err(SessionError::Unexpected { reply }),
        }
    }

    /// The session that is open, or a new one.
    async fn open(&self, attempts: &mut Attempts) -> Result<SessionId, SessionError<P::Error>> {
        let Ok(_one) = timeout_at(attempts.deadline, self.registering.lock()).await else {
            return Err(attempts.not_applied());
        };
        if let Some(id) = self.session() {
            return Ok(id);
        }
        // An attempt that succeeded unheard has opened a session that nobody uses.
        let register = || Command::Register { time: (self.clock)() };
        let registered = self.send(register, attempts, &mut false).await.map_err(|error| match error {
            SessionError::Unknown { waited, last } => SessionError::NotApplied { waited, last },
            error => error,
        });
        match registered? {
            Reply::Registered { session: id, outstanding } => {
                let open =
                    Open { id, outstanding: outstanding.max(1).into(), next: 1, waiting: BTreeSet::new() };
                self.lock().session = Some(open);
                self.room.notify_waiters();
                Ok(id)
            }
            reply => Err(SessionError::Unexpected { reply }),
        }
    }

    /// A place for a command, as soon as there is one.
    async fn place(&self, attempts: &mut Attempts) -> Result<Place<'_>, SessionError<P::Error>> {
        loop {
            // Before it is looked: what becomes free from here on is heard.
            let free: Notified<'_> = self.room.notified();
            match self.try_place() {
                Ok(Some(place)) => return Ok(place),
                Ok(None) => {
                    attempts.last = "other commands of the session are in the way".to_owned();
                    if timeout_at(attempts.deadline, free).await.is_err() {
                        return Err(attempts.not_applied());
                    }
                }
                Err(NoSession) => {
                    self.open(attempts).await?;
                }
            }
        }
    }

    fn try_place(&self) -> Result<Option<Place<'_>>, NoSession> {
        let mut state = self.lock();
        let open = state.session.as_mut().ok_or(NoSession)?;
        let seq = open.next;
        if seq - open.acknowledged() > open.outstanding {
            return Ok(None);
        }
        open.next += 1;
        open.waiting.insert(seq);
        // Whoever waits is woken one by one: by who gives a place back, and by who finds that there is another.
        if open.next - open.acknowledged() <= open.outstanding {
            self.room.notify_one();
        }
        Ok(Some(Place { state: &self.state, room: &self.room, session: open.id, seq }))
    }

    /// Sends the command at this place until its reply comes; nothing if the session has expired and it was not applied.
    async fn apply(
        &self,
        place: &Place<'_>,
        command: &Bytes,
        attempts: &mut Attempts,
    ) -> Result<Option<Bytes>, SessionError<P::Error>> {
        let (session, seq) = (place.session, place.seq);
        let mut maybe_applied = false;
        loop {
            let apply = || Command::Apply {
                session,
                seq,
                acknowledged: place.acknowledged(),
                time: (self.clock)(),
                command: command.clone(),
            };
            match self.send(apply, attempts, &mut maybe_applied).await? {
                Reply::Applied(reply) => return Ok(Some(reply)),
                Reply::UnknownSession => {
                    self.forget(session);
                    if maybe_applied {
                        return Err(SessionError::Expired { session, last: attempts.last.clone() });
                    }
                    attempts.last = format!("session {session} has expired");
                    if attempts.pause().await {
                        return Ok(None);
                    }
                    return Err(attempts.not_applied());
                }
                // There will be room when other commands are acknowledged; this one was not applied so far.
                reply @ (Reply::TooFarAhead | Reply::Full) => {
                    attempts.last = format!("refused: {reply:?}");
                    if !attempts.pause().await {
                        return Err(attempts.failed(maybe_applied));
                    }
                }
                reply => return Err(SessionError::Unexpected { reply }),
            }
        }
    }

    /// Proposes until there is a reply. Sets `maybe_applied` once an attempt may have succeeded unheard.
    async fn send(
        &self,
        command: impl Fn() -> Command,
        attempts: &mut Attempts,
        maybe_applied: &mut bool,
    ) -> Result<Reply, SessionError<P::Error>> {
        loop {
            match self.attempt(command(), attempts.deadline).await {
                Ended::Replied(reply) => return Ok(reply),
                Ended::Late => {
                    "no answer in time".clone_into(&mut attempts.last);
                    return Err(attempts.failed(true));
                }
                Ended::Failed(error, failure) => {
                    *maybe_applied |= failure.maybe_applied;
                    attempts.last = error.to_string();
                    if !failure.again && !*maybe_applied {
                        return Err(SessionError::Refused(error));
                    }
                    if !failure.again || !attempts.pause().await {
                        return Err(attempts.failed(*maybe_applied));
                    }
                }
            }
        }
    }

    async fn attempt(&self, command: Command, deadline: Instant) -> Ended<P::Error> {
        match timeout_at(deadline, self.proposer.propose(command)).await {
            Ok(Ok(reply)) => Ended::Replied(reply),
            Ok(Err(error)) => {
                let failure = P::failure(&error);
                Ended::Failed(error, failure)
            }
            Err(_elapsed) => Ended::Late,
        }
    }

    /// The session is no more: the next command opens another.
    fn forget(&self, session: SessionId) {
        let mut state = self.lock();
        if state.session.as_ref().is_some_and(|open| open.id == session) {
            state.session = None;
            drop(state);
            self.room.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl<M, P> fmt::Debug for Client<M, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = lock(&self.state).session.as_ref().map(|open| open.id);
        f.debug_struct("Client")
            .field("session", &session)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

struct NoSession;

/// A command's place in its session: as long as it lives, nothing from there on is acknowledged.
struct Place<'a> {
    state: &'a Mutex<State>,
    room: &'a Notify,
    session: SessionId,
    seq: u64,
}

impl Place<'_> {
    fn acknowledged(&self) -> u64 {
        match &lock(self.state).session {
            Some(open) if open.id == self.session => open.acknowledged(),
            // The session is gone, or about to be.
            Some(_) | None => 0,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(open) = &mut lock(self.state).session
            && open.id == self.session
        {
            open.waiting.remove(&self.seq);
        }
        self.room.notify_one();
    }
}

impl Attempts {
    /// A leader that was just lost is replaced in about an election timeout: to ask much more often helps nobody.
    const MAX_PAUSE: Duration = Duration::from_millis(100);

    /// Longer than anybody waits, and not so long that no clock can tell when it is over.
    const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

    fn new(timeout: Duration) -> Self {
        let pause = Duration::from_millis(1);
        let last = "another task registers".to_owned();
        let deadline = Instant::now() + timeout.min(Self::FOR_EVER);
        Self { waited: timeout, deadline, pause, last }
    }

    /// Waits before another attempt; false if there is no time for one.
    async fn pause(&mut self) -> bool {
        let until = Instant::now() + self.pause;
        if until >= self.deadline {
            return false;
        }
        sleep_until(until).await;
        self.pause = (self.pause * 2).min(Self::MAX_PAUSE);
        true
    }

    fn failed<E: std::error::Error>(&self, maybe_applied: bool) -> SessionError<E> {
        if maybe_applied {
            return SessionError::Unknown { waited: self.waited, last: self.last.clone() };
        }
        self.not_applied()
    }

    fn not_applied<E: std::error::Error>(&self) -> SessionError<E> {
        SessionError::NotApplied { waited: self.waited, last: self.last.clone() }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
