//! What waits for the driver: a lane for each kind of thing, taken up all at once.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quorate_core::{Body, ENTRY_HEADER, Index, Input, Instant, Message, NodeId, Run, StateMachine, Status};
use tokio::sync::oneshot;

use crate::{
    apply::Reading,
    consistency::Consistency,
    control::Control,
    error::{Refusal, StopReason, Stopped},
    snapshots::{News, SnapshotAnswer},
    sync::{Mutex, MutexGuard},
    trace::Stages,
};

/// How much may wait for the driver, or for an outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Proposals without an outcome; and reads without an answer, which whoever puts them in counts.
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

/// Where a proposal's outcome goes, and what is known of it on its way there.
pub(crate) struct Answer<R> {
    /// Counts for as long as it lives, wherever it is; set when it is taken in. The first field, and so dropped before `sender`:
    /// whoever learns that he gets no answer finds room for another proposal.
    owed: Option<Arc<()>>,
    sender: oneshot::Sender<Result<R, Refusal>>,
    pub(crate) stages: Stages,
    /// When the core took it.
    pub(crate) taken: Instant,
}

impl<R> Answer<R> {
    pub(crate) const fn new(sender: oneshot::Sender<Result<R, Refusal>>, stages: Stages) -> Self {
        Self { owed: None, sender, stages, taken: Instant(0) }
    }

    /// Nobody waits any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Gives it to whoever waits, who may have gone: nobody minds.
    pub(crate) fn send(self, outcome: Result<R, Refusal>) {
        // Its last stage is over, and its place free, before anybody can know that it is.
        drop((self.stages, self.owed));
        let _gone = self.sender.send(outcome);
    }
}

/// A look at a node.
pub(crate) struct Look {
    pub(crate) raft: Status,
    /// How many jobs wait for the state machine.
    pub(crate) apply: usize,
}

/// How much waits to be taken up, and for an outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Depth {
    /// Proposals without an outcome.
    pub(crate) proposals: usize,
    /// Bytes of those that wait to be taken up.
    pub(crate) proposal_bytes: usize,
    pub(crate) messages: usize,
    pub(crate) message_bytes: usize,
}

/// What has become of touch with a peer since the driver last looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// It is lost.
    Lost,
    /// It is there.
    Found,
    /// It was lost, and is there again: the peer may have been started anew meanwhile, and not lead any more.
    LostMeanwhile,
}

/// All that has been waiting at one moment.
pub(crate) struct Work<S: StateMachine> {
    /// From this node's own threads. As many as the core has asked for: its bounds are theirs.
    pub(crate) inputs: Vec<Input>,
    /// How far the state machine has come.
    pub(crate) applied: Option<Index>,
    pub(crate) messages: Vec<(NodeId, Message)>,
    pub(crate) proposals: Vec<Proposed<S::Reply>>,
    pub(crate) reads: Vec<Box<dyn Reading<S>>>,
    pub(crate) lease_reads: Vec<Box<dyn Reading<S>>>,
    /// By the index that they must see.
    pub(crate) reads_at: BTreeMap<Index, Vec<Box<dyn Reading<S>>>>,
    pub(crate) stale_reads: Vec<Box<dyn Reading<S>>>,
    /// Somebody has given up a read for an index.
    pub(crate) given_up: bool,
    pub(crate) questions: Vec<oneshot::Sender<Look>>,
    pub(crate) controls: Vec<Control>,
    /// Who wants a snapshot to be taken.
    pub(crate) snapshots: Vec<SnapshotAnswer>,
    /// What has become of snapshots. As many as are under way.
    pub(crate) news: Vec<News>,
    /// Peers of which the transport has said something.
    pub(crate) touch: BTreeMap<NodeId, Touch>,
    /// Somebody wants the node to stop.
    pub(crate) stop: Option<StopReason>,
    proposal_bytes: usize,
    message_bytes: usize,
}

/// The driver's inbox. Whoever puts something in wakes the driver if it was asleep; the driver takes up everything
/// with one exchange of buffers, so nobody holds the lock for long.
pub(crate) struct Inbox<S: StateMachine> {
    limits: Limits,
    /// Each answer that is owed has one of these, beside the one here: so their count is kept by the `Arc` itself, for one
    /// addition and one subtraction each. Cloned under the lock alone, so two can't both be the last that there is room for.
    owed: Arc<()>,
    state: Mutex<State<S>>,
}

struct State<S: StateMachine> {
    work: Work<S>,
    waker: Option<Waker>,
    /// No requests are taken any more.
    closed: Option<Stopped>,
    /// Nothing at all is taken any more.
    over: bool,
}

impl<S: StateMachine> Inbox<S> {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State { work: Work::new(), waker: None, closed: None, over: false };
        Self { limits, owed: Arc::new(()), state: Mutex::new(state) }
    }

    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Puts a command in, or gives the reason why not.
    pub(crate) fn propose(&self, command: Bytes, mut answer: Answer<S::Reply>) -> Result<(), Refusal> {
        let mut state = self.open()?;
        let Limits { pending, proposal_bytes, .. } = self.limits;
        let size = ENTRY_HEADER + command.len();
        if size > proposal_bytes {
            // The core would say the same: it would never be taken, however empty the queue.
            return Err(Refusal::TooBig { bytes: size as u64, bound: proposal_bytes as u64 });
        }
        if self.owed() >= pending {
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
        answer.owed = Some(self.owed.clone());
        state.work.proposals.push(Proposed { command, answer });
        wake(state);
        Ok(())
    }

    /// Puts a read in, or refuses it.
    pub(crate) fn read(&self, read: Box<dyn Reading<S>>, consistency: Consistency) {
        let mut state = match self.open() {
            Ok(state) => state,
            Err(refusal) => return read.refuse(refusal),
        };
        let work = &mut state.work;
        let lane = match consistency {
            Consistency::Linearizable => &mut work.reads,
            Consistency::Lease => &mut work.lease_reads,
            Consistency::AtLeast(index) => work.reads_at.entry(index).or_default(),
            Consistency::Stale => &mut work.stale_reads,
        };
        lane.push(read);
        wake(state);
    }

    /// Nobody waits any more for some read for an index: it can be let go of.
    pub(crate) fn given_up(&self) {
        let mut state = self.lock();
        if !state.over {
            state.work.given_up = true;
            wake(state);
        }
    }

    /// Asks for the protocol's state.
    pub(crate) fn ask(&self, question: oneshot::Sender<Look>) -> Result<(), Refusal> {
        let mut state = self.open()?;
        if state.work.questions.len() >= self.limits.pending {
            return Err(Refusal::Overloaded("overloaded: too many questions for the status".into()));
        }
        state.work.questions.push(question);
        wake(state);
        Ok(())
    }

    /// Puts in a request about the cluster itself, or gives the reason why not.
    pub(crate) fn control(&self, control: Control) -> Result<(), Refusal> {
        let mut state = self.open()?;
        if state.work.controls.len() >= self.limits.pending {
            return Err(Refusal::Overloaded("overloaded: too many requests about the cluster".into()));
        }
        state.work.controls.push(control);
        wake(state);
        Ok(())
    }

    /// Asks for a snapshot, or gives the reason why not.
    pub(crate) fn snapshot(&self, answer: SnapshotAnswer) -> Result<(), Refusal> {
        let mut state = self.open()?;
        if state.work.snapshots.len() >= self.limits.pending {
            return Err(Refusal::Overloaded("overloaded: too many wait for a snapshot".into()));
        }
        state.work.snapshots.push(answer);
        wake(state);
        Ok(())
    }

    /// Something has become of a snapshot.
    pub(crate) fn news(&self, news: News) {
        let mut state = self.lock();
        if !state.over {
            state.work.news.push(news);
            wake(state);
        }
    }

    /// The transport has lost touch with a peer, or is in touch with it.
    pub(crate) fn touch(&self, peer: NodeId, lost: bool) {
        let mut state = self.lock();
        if !state.over {
            let told = match state.work.touch.get(&peer) {
                _ if lost => Touch::Lost,
                Some(Touch::Lost | Touch::LostMeanwhile) => Touch::LostMeanwhile,
                Some(Touch::Found) | None => Touch::Found,
            };
            state.work.touch.insert(peer, told);
            wake(state);
        }
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
            let failure = |why: &StopReason| {
                matches!(
                    why,
                    StopReason::Storage(_)
                        | StopReason::Restore { .. }
                        | StopReason::StateMachine { .. }
                        | StopReason::Panicked { .. }
                )
            };
            if !state.work.stop.as_ref().is_some_and(failure) {
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
            proposed.answer.send(Err(Refusal::Stopped(stopped.clone())));
        }
        let reads_at = work.reads_at.into_values().flatten();
        for read in work.reads.into_iter().chain(work.lease_reads).chain(reads_at).chain(work.stale_reads) {
            read.refuse(Refusal::Stopped(stopped.clone()));
        }
        for control in work.controls {
            let _gone = control.answer.send(Err(stopped.clone().into()));
        }
        for answer in work.snapshots {
            let _gone = answer.send(Err(stopped.clone().into()));
        }
    }

    /// How much waits.
    pub(crate) fn depth(&self) -> Depth {
        let state = self.lock();
        Depth {
            proposals: self.owed(),
            proposal_bytes: state.work.proposal_bytes,
            messages: state.work.messages.len(),
            message_bytes: state.work.message_bytes,
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

    /// Takes up all that waits, into `work`, which is empty.
    pub(crate) fn take(&self, work: &mut Work<S>) {
        mem::swap(&mut self.lock().work, work);
        (work.proposal_bytes, work.message_bytes) = (0, 0);
    }

    /// How many proposals have no outcome, wherever they are.
    fn owed(&self) -> usize {
        Arc::strong_count(&self.owed) - 1
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
            lease_reads: Vec::new(),
            reads_at: BTreeMap::new(),
            stale_reads: Vec::new(),
            given_up: false,
            questions: Vec::new(),
            controls: Vec::new(),
            snapshots: Vec::new(),
            news: Vec::new(),
            touch: BTreeMap::new(),
            stop: None,
            proposal_bytes: 0,
            message_bytes: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.changes_nothing() && self.questions.is_empty()
    }

    /// It is nothing, or only questions.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.inputs.is_empty()
            && self.applied.is_none()
            && self.messages.is_empty()
            && self.proposals.is_empty()
            && self.reads.is_empty()
            && self.lease_reads.is_empty()
            && self.reads_at.is_empty()
            && self.stale_reads.is_empty()
            && !self.given_up
            && self.controls.is_empty()
            && self.snapshots.is_empty()
            && self.news.is_empty()
            && self.touch.is_empty()
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

#[cfg(all(test, feature = "shuttle"))]
mod races;

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{Entry, LogId, Term};

    struct Nothing;

    impl StateMachine for Nothing {
        type Command = Bytes;
        type Reply = Bytes;

        fn apply(&mut self, _: &Entry) -> Bytes {
            Bytes::new()
        }
    }

    fn inbox() -> Inbox<Nothing> {
        Inbox::new(Limits { pending: 3, proposal_bytes: 100, message_bytes: 1000 })
    }

    fn append(bytes: usize) -> Message {
        let entries =
            Run::commands(Term(1), Index(1), &[vec![0; bytes - ENTRY_HEADER]]).into_iter().collect();
        Message { term: Term(1), body: Body::Append { prev: LogId::ZERO, commit: Index(0), entries } }
    }

    fn propose(inbox: &Inbox<Nothing>, bytes: usize) -> Result<(), Refusal> {
        inbox.propose(
            Bytes::from(vec![0; bytes - ENTRY_HEADER]),
            Answer::new(oneshot::channel().0, Stages::none()),
        )
    }

    #[test]
    fn drops_messages_beyond_its_bounds_until_they_are_taken_up() {
        let (inbox, from) = (inbox(), NodeId(2));
        assert!(inbox.receive(from, append(5000)), "a single one always has room, or it would never come");
        assert!(!inbox.receive(from, append(5)));
        let mut work = Work::new();
        inbox.take(&mut work);
        assert_eq!(work.messages.len(), 1);
        work.messages.clear();
        let taken = (0..10).filter(|_| inbox.receive(from, append(300))).count();
        assert_eq!(taken, 2, "each weighs 300 and some");
        inbox.take(&mut work);
        work.messages.clear();
        let small = Inbox::<Nothing>::new(Limits { message_bytes: usize::MAX, ..inbox.limits });
        let taken = (0..2 * MAX_MESSAGES).filter(|_| small.receive(from, append(5))).count();
        assert_eq!(taken, MAX_MESSAGES);
    }

    #[test]
    fn refuses_proposals_beyond_its_bounds_and_counts_those_taken_up() {
        let inbox = inbox();
        assert_eq!(propose(&inbox, 101), Err(Refusal::TooBig { bytes: 101, bound: 100 }));
        assert_eq!(propose(&inbox, 60), Ok(()));
        assert!(matches!(propose(&inbox, 41), Err(Refusal::Overloaded(_))));
        assert_eq!(propose(&inbox, 40), Ok(()));
        let mut work = Work::new();
        inbox.take(&mut work);
        assert_eq!(work.proposals.len(), 2);
        assert_eq!(propose(&inbox, 40), Ok(()));
        assert!(matches!(propose(&inbox, 40), Err(Refusal::Overloaded(_))), "two are held, one waits");
        assert_eq!(inbox.depth().proposals, 3);
        // Answered or given up: whoever is told so finds room, though nothing more was taken up.
        let [first, second] = <[_; 2]>::try_from(work.proposals).ok().unwrap();
        first.answer.send(Ok(Bytes::new()));
        assert_eq!((inbox.depth().proposals, propose(&inbox, 30)), (2, Ok(())));
        drop(second);
        assert_eq!((inbox.depth().proposals, propose(&inbox, 30)), (2, Ok(())));
        assert!(matches!(propose(&inbox, 10), Err(Refusal::Overloaded(_))));
    }

    #[test]
    fn takes_no_requests_once_it_stops_and_nothing_at_all_once_it_is_over() {
        let inbox = inbox();
        let (answer, mut outcome) = oneshot::channel();
        assert_eq!(inbox.propose(Bytes::new(), Answer::new(answer, Stages::none())), Ok(()));
        inbox.stop(StopReason::Shutdown);
        let stopped = Stopped { why: StopReason::Shutdown };
        assert_eq!(propose(&inbox, 10), Err(Refusal::Stopped(stopped.clone())));
        assert!(inbox.receive(NodeId(2), append(10)), "the node goes on until it is done");
        inbox.close(&stopped);
        assert!(!inbox.receive(NodeId(2), append(10)));
        assert_eq!(outcome.try_recv(), Ok(Err(Refusal::Stopped(stopped))), "it was never taken up");
        let mut work = Work::new();
        inbox.take(&mut work);
        assert!(work.is_empty());
    }

    #[test]
    fn a_loss_is_told_though_the_peer_is_back() {
        let told = |said: &[bool]| {
            let inbox = inbox();
            said.iter().for_each(|lost| inbox.touch(NodeId(2), *lost));
            inbox.lock().work.touch[&NodeId(2)]
        };
        assert_eq!(told(&[true]), Touch::Lost);
        assert_eq!(told(&[false]), Touch::Found);
        assert_eq!(told(&[false, false]), Touch::Found);
        assert_eq!(told(&[false, true]), Touch::Lost);
        assert_eq!(told(&[true, false]), Touch::LostMeanwhile);
        assert_eq!(told(&[true, false, false]), Touch::LostMeanwhile);
        assert_eq!(told(&[true, false, true]), Touch::Lost);
    }

    #[test]
    fn a_failure_overtakes_a_shutdown_and_nothing_overtakes_a_failure() {
        let inbox = inbox();
        let taken = |why: StopReason| {
            inbox.stop(why);
            inbox.lock().work.stop.clone().unwrap()
        };
        let failed = StopReason::Storage("full".into());
        assert_eq!(taken(StopReason::Shutdown), StopReason::Shutdown);
        assert_eq!(taken(failed.clone()), failed);
        assert_eq!(taken(StopReason::Dropped), failed);
    }
}
