//! What waits for the driver: a lane for each kind of thing, taken up all at once.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quorate_core::{Body, ENTRY_HEADER, Index, Input, Message, NodeId, Run, StateMachine, Status};
use tokio::sync::oneshot;

use crate::{
    apply::Reading,
    error::{Refusal, StopReason, Stopped},
};

/// How much may wait for the driver, or for an outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Proposals, and reads, without an outcome: so many of each.
    pub(crate) pending: usize,
    /// Bytes of proposals that wait to be taken up.
    pub(crate) proposal_bytes: usize,
    /// Bytes of messages that wait to be taken up.
    pub(crate) message_bytes: usize,
}

/// So many messages may wait to be taken up, however small they are.
const MAX_MESSAGES: usize = 16_384;

/// What a message is taken to weigh beside its entries.
const MESSAGE_OVERHEAD: usize = 128;

/// A command, and who waits for its reply.
pub(crate) struct Proposed<R> {
    pub(crate) command: Bytes,
    pub(crate) answer: Answer<R>,
}

impl<R> AsRef<[u8]> for Proposed<R> {
    fn as_ref(&self) -> &[u8] {
        &self.command
    }
}

/// Where a proposal's outcome goes. Whoever waits may have gone: nobody minds.
pub(crate) type Answer<R> = oneshot::Sender<Result<R, Refusal>>;

/// All that has been waiting at one moment.
pub(crate) struct Work<S: StateMachine> {
    /// From this node's own threads. As many as the core has asked for: its bounds are theirs.
    pub(crate) inputs: Vec<Input>,
    /// How far the state machine has come.
    pub(crate) applied: Option<Index>,
    pub(crate) messages: Vec<(NodeId, Message)>,
    pub(crate) proposals: Vec<Proposed<S::Reply>>,
    pub(crate) reads: Vec<Box<dyn Reading<S>>>,
    pub(crate) stale_reads: Vec<Box<dyn Reading<S>>>,
    pub(crate) questions: Vec<oneshot::Sender<Status>>,
    /// Somebody wants the node to stop.
    pub(crate) stop: Option<StopReason>,
    proposal_bytes: usize,
    message_bytes: usize,
}

/// The driver's inbox. Whoever puts something in wakes the driver if it was asleep; the driver takes up everything
/// with one exchange of buffers, so nobody holds the lock for long.
pub(crate) struct Inbox<S: StateMachine> {
    limits: Limits,
    state: Mutex<State<S>>,
}

struct State<S: StateMachine> {
    work: Work<S>,
    waker: Option<Waker>,
    /// No requests are taken any more.
    closed: Option<Stopped>,
    /// Nothing at all is taken any more.
    over: bool,
    /// Proposals and reads that the driver holds.
    pending: Pending,
}

/// Requests that the driver has taken up and that have no outcome yet.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Pending {
    pub(crate) proposals: usize,
    pub(crate) reads: usize,
}

impl<S: StateMachine> Inbox<S> {
    pub(crate) fn new(limits: Limits) -> Self {
        let state =
            State { work: Work::new(), waker: None, closed: None, over: false, pending: Pending::default() };
        Self { limits, state: Mutex::new(state) }
    }

    /// Puts a command in, or gives the reason why not.
    pub(crate) fn propose(&self, command: Bytes, answer: Answer<S::Reply>) -> Result<(), Refusal> {
        let mut state = self.open()?;
        let Limits { pending, proposal_bytes, .. } = self.limits;
        let size = ENTRY_HEADER + command.len();
        if size > proposal_bytes {
            // The core would say the same: it would never be taken, however empty the queue.
            return Err(Refusal::TooBig { bytes: size as u64, bound: proposal_bytes as u64 });
        }
        if state.work.proposals.len() + state.pending.proposals >= pending {
            return Err(Refusal::Overloaded(format!(
                "overloaded: pending proposals would pass their bound of {pending}"
            )));
        }
        let bytes = state.work.proposal_bytes.saturating_add(size);
        if bytes > proposal_bytes {
            return Err(Refusal::Overloaded(format!(
                "overloaded: bytes waiting to be proposed would pass their bound of {proposal_bytes}"
            )));
        }
        state.work.proposal_bytes = bytes;
        state.work.proposals.push(Proposed { command, answer });
        wake(state);
        Ok(())
    }

    /// Puts a read in, linearizable or not; or refuses it.
    pub(crate) fn read(&self, read: Box<dyn Reading<S>>, stale: bool) {
        let mut state = match self.open() {
            Ok(state) => state,
            Err(refusal) => return read.refuse(refusal),
        };
        let waiting = state.work.reads.len() + state.work.stale_reads.len() + state.pending.reads;
        if waiting >= self.limits.pending {
            drop(state);
            return read.refuse(Refusal::Overloaded(format!(
                "overloaded: pending reads would pass their bound of {}",
                self.limits.pending
            )));
        }
        let lane = if stale { &mut state.work.stale_reads } else { &mut state.work.reads };
        lane.push(read);
        wake(state);
    }

    /// Asks for the protocol's state.
    pub(crate) fn ask(&self, question: oneshot::Sender<Status>) -> Result<(), Refusal> {
        let mut state = self.open()?;
        if state.work.questions.len() >= self.limits.pending {
            return Err(Refusal::Overloaded("overloaded: too many questions for the status".into()));
        }
        state.work.questions.push(question);
        wake(state);
        Ok(())
    }

    /// A message has come. Says whether there was room for it: if not it is lost, as messages may be.
    pub(crate) fn receive(&self, from: NodeId, message: Message) -> bool {
        let weight = weight(&message);
        let mut state = self.lock();
        let bytes = state.work.message_bytes.saturating_add(weight);
        let room = state.work.messages.is_empty() || bytes <= self.limits.message_bytes;
        if state.over || !room || state.work.messages.len() >= MAX_MESSAGES {
            return false;
        }
        state.work.message_bytes = bytes;
        state.work.messages.push((from, message));
        wake(state);
        true
    }

    /// One of this node's threads has done something.
    pub(crate) fn input(&self, input: Input) {
        let mut state = self.lock();
        if !state.over {
            state.work.inputs.push(input);
            wake(state);
        }
    }

    /// The state machine has applied everything up to `index`.
    pub(crate) fn applied(&self, index: Index) {
        let mut state = self.lock();
        if !state.over {
            state.work.applied = Some(index);
            wake(state);
        }
    }

    /// Takes no requests from now on, and asks the driver to stop. The first reason counts.
    pub(crate) fn stop(&self, why: StopReason) {
        let mut state = self.lock();
        if !state.over {
            state.closed.get_or_insert_with(|| Stopped { why: why.clone() });
            // A failure overtakes a shutdown that is under way: it ends it at once.
            if !matches!(state.work.stop, Some(StopReason::Storage(_) | StopReason::Panicked { .. })) {
                state.work.stop = Some(why);
            }
            wake(state);
        }
    }

    /// The end: nothing is taken any more, and requests that were never taken up are refused.
    pub(crate) fn close(&self, stopped: &Stopped) {
        let mut state = self.lock();
        state.over = true;
        state.closed = Some(stopped.clone());
        let work = mem::replace(&mut state.work, Work::new());
        drop(state);
        for proposed in work.proposals {
            let _gone = proposed.answer.send(Err(Refusal::Stopped(stopped.clone())));
        }
        for read in work.reads.into_iter().chain(work.stale_reads) {
            read.refuse(Refusal::Stopped(stopped.clone()));
        }
    }

    /// Why no requests are taken, if so.
    pub(crate) fn closed(&self) -> Option<Stopped> {
        self.lock().closed.clone()
    }

    /// Ready as soon as anything waits.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.work.is_empty() {
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Takes up all that waits, into `work`, which is empty. `pending` is what the driver holds already.
    pub(crate) fn take(&self, work: &mut Work<S>, mut pending: Pending) {
        let mut state = self.lock();
        mem::swap(&mut state.work, work);
        pending.proposals += work.proposals.len();
        pending.reads += work.reads.len() + work.stale_reads.len();
        state.pending = pending;
        drop(state);
        (work.proposal_bytes, work.message_bytes) = (0, 0);
    }

    fn open(&self) -> Result<MutexGuard<'_, State<S>>, Refusal> {
        let state = self.lock();
        match &state.closed {
            Some(stopped) => Err(Refusal::Stopped(stopped.clone())),
            None => Ok(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // Nothing under the lock leaves the state half changed, even if it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: StateMachine> Work<S> {
    pub(crate) const fn new() -> Self {
        Self {
            inputs: Vec::new(),
            applied: None,
            messages: Vec::new(),
            proposals: Vec::new(),
            reads: Vec::new(),
            stale_reads: Vec::new(),
            questions: Vec::new(),
            stop: None,
            proposal_bytes: 0,
            message_bytes: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.inputs.is_empty()
            && self.applied.is_none()
            && self.messages.is_empty()
            && self.proposals.is_empty()
            && self.reads.is_empty()
            && self.stale_reads.is_empty()
            && self.questions.is_empty()
            && self.stop.is_none()
    }
}

/// Lets go of the lock, and wakes the driver if it sleeps.
fn wake<S: StateMachine>(mut state: MutexGuard<'_, State<S>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn weight(message: &Message) -> usize {
    let entries = if let Body::Append { entries, .. } = &message.body {
        entries.iter().map(Run::bytes).sum()
    } else {
        0
    };
    MESSAGE_OVERHEAD + entries
}
