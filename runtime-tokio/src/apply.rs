//! The apply thread: it owns the state machine, applies what is committed, answers proposers and runs reads.
//!
//! A thread of its own, not a task: a state machine is the user's code and may be slow, or wait for something, and on
//! a worker of the runtime it would hold up what else runs there, heartbeats included.

use std::{
    iter::Peekable,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, TryRecvError},
    },
    vec,
};

use quorate_core::{
    Entry, EntryKind, Few, Index, Membership, Run, Snapshot, Source, StateError, StateMachine,
};
use tokio::sync::oneshot;

use crate::{
    error::{Refusal, StopReason, panic_message},
    inbox::Answer,
    shared::Shared,
    status::count,
};

/// Something for the state machine, in order. The queue is bounded by the core's `max_applying_bytes` and by the
/// driver's bound on reads.
pub(crate) enum Job<S: StateMachine> {
    /// Apply these.
    Apply {
        /// Committed entries.
        entries: Few<Run>,
        /// Who waits for which of them, in order.
        waiting: Vec<(Index, Answer<S::Reply>)>,
    },
    /// Look at the state: what was handed over before is applied by then.
    Read(Box<dyn Reading<S>>),
}

/// Who waits for which entry, in order, as far as not answered yet.
type Waiting<R> = Peekable<vec::IntoIter<(Index, Answer<R>)>>;

/// A read that waits, whatever it returns.
pub(crate) trait Reading<S>: Send {
    /// Runs it. `at` is how far the state machine is.
    fn run(self: Box<Self>, machine: &S, at: &Snapshot);
    /// Gives it back unread.
    fn refuse(self: Box<Self>, refusal: Refusal);
}

/// How a read ended.
pub(crate) enum Read<F, R> {
    /// With this.
    Done(R),
    /// Not at all: here it is again, to be tried once more.
    Refused(F, Refusal),
    /// With a panic.
    Panicked(String),
}

/// The usual [`Reading`]: a closure, and who waits for what it returns.
pub(crate) struct Closure<F, R> {
    pub(crate) read: F,
    pub(crate) answer: oneshot::Sender<Read<F, R>>,
    pub(crate) ticket: Ticket,
}

/// Counts a read, or the bytes of a command, for as long as it waits, wherever it is, also when nobody waits for it
/// any more.
pub(crate) struct Ticket {
    waiting: Arc<AtomicUsize>,
    weight: usize,
}

impl Ticket {
    /// As much more, if no more than `bound` waits then.
    pub(crate) fn take(waiting: &Arc<AtomicUsize>, weight: usize, bound: usize) -> Option<Self> {
        // Counted before it is looked at: two at once can't both be the last.
        let ticket = Self { waiting: waiting.clone(), weight };
        (waiting.fetch_add(weight, Relaxed).saturating_add(weight) <= bound).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.weight, Relaxed);
    }
}

impl<S, F, R> Reading<S> for Closure<F, R>
where
    F: FnOnce(&S, &Snapshot) -> R + Send,
    R: Send,
{
    fn run(self: Box<Self>, machine: &S, at: &Snapshot) {
        let Self { read, answer, ticket: _ticket } = *self;
        if answer.is_closed() {
            return;
        }
        // A read can't leave the state half changed: it has a shared reference only.
        let read = match catch_unwind(AssertUnwindSafe(|| read(machine, at))) {
            Ok(result) => Read::Done(result),
            Err(panic) => Read::Panicked(panic_message(&*panic)),
        };
        let _gone = answer.send(read);
    }

    fn refuse(self: Box<Self>, refusal: Refusal) {
        let Self { read, answer, ticket } = *self;
        drop(ticket);
        let _gone = answer.send(Read::Refused(read, refusal));
    }
}

/// Puts what a snapshot holds into a fresh state machine.
pub(crate) fn restore<S: StateMachine>(
    machine: &mut S,
    snapshot: Option<Box<dyn Source + Send>>,
) -> Result<(), StateError> {
    let Some(mut source) = snapshot else { return Ok(()) };
    let restore = AssertUnwindSafe(|| machine.restore(&mut *source));
    catch_unwind(restore)
        .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(&*panic)).into()))
}

/// How many jobs are done before the driver hears of it, if more are waiting.
const REPORT_EVERY: u32 = 64;

/// Runs until the driver lets go of the queue, `quit` is set, or the state machine panics. `at` is where `machine` is: the
/// last entry that is in its state, and the membership in force there.
pub(crate) fn run<S: StateMachine>(
    mut machine: S,
    mut at: Snapshot,
    jobs: &Receiver<Job<S>>,
    quit: &AtomicBool,
    shared: &Arc<Shared<S>>,
) {
    let mut unreported = 0;
    let mut last = Index(0);
    loop {
        let job = match jobs.try_recv() {
            Ok(job) => job,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                // One report for all that was waiting: it makes room, and nobody is in a hurry for it.
                if unreported > 0 {
                    shared.inbox.applied(last);
                    unreported = 0;
                }
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_disconnected) => return,
                }
            }
        };
        match job {
            Job::Read(read) => read.run(&machine, &at),
            Job::Apply { entries, waiting } => {
                last = entries.last().map_or(last, Run::last);
                // Dropped after a panic was told, so that those in it learn why they have no answer.
                let mut waiting = waiting.into_iter().peekable();
                // If it panics the state machine is never used again.
                let apply = AssertUnwindSafe(|| apply(&mut machine, &entries, &mut waiting, quit, &mut at));
                match catch_unwind(apply) {
                    Ok(Some(applied)) => count(&shared.counters.applied, applied),
                    Ok(None) => return,
                    Err(panic) => {
                        let message = panic_message(&*panic).into();
                        shared.inbox.stop(StopReason::Panicked { at: at.last, message });
                        return;
                    }
                }
                unreported += 1;
                if unreported == REPORT_EVERY {
                    shared.inbox.applied(last);
                    unreported = 0;
                }
            }
        }
    }
}

/// Applies `runs` and says how many entries that were; `None` if it was told to quit.
fn apply<S: StateMachine>(
    machine: &mut S,
    runs: &Few<Run>,
    waiting: &mut Waiting<S::Reply>,
    quit: &AtomicBool,
    at: &mut Snapshot,
) -> Option<usize> {
    let mut applied = 0;
    for entry in runs.iter().flat_map(Run::entries) {
        if quit.load(Relaxed) {
            return None;
        }
        at.last = entry.id;
        applied += 1;
        if let Some(reply) = apply_one(machine, &entry, &mut at.membership)
            && let Some((_, answer)) = waiting.next_if(|(index, _)| *index == entry.id.index)
        {
            let _gone = answer.send(Ok(reply));
        }
    }
    Some(applied)
}

fn apply_one<S: StateMachine>(machine: &mut S, entry: &Entry, in_force: &mut Membership) -> Option<S::Reply> {
    match entry.kind {
        EntryKind::Noop => {}
        EntryKind::Command => return Some(machine.apply(entry)),
        EntryKind::Membership => {
            // Whatever made the run has looked at its memberships, so this is one.
            if let Ok(membership) = Membership::decode(&entry.payload) {
                machine.membership(entry.id, &membership);
                *in_force = membership;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_core::{LogId, NodeId, Term};

    /// Writes down what it is told.
    #[derive(Default)]
    struct Notes(Vec<String>);

    impl StateMachine for Notes {
        type Command = Bytes;
        type Reply = Bytes;

        fn apply(&mut self, entry: &Entry) -> Bytes {
            self.0.push(format!("{:?} at {}", entry.payload, entry.id));
            Bytes::from(self.0.len().to_string())
        }

        fn membership(&mut self, id: LogId, membership: &Membership) {
            self.0.push(format!("{:?} at {id}", membership.voters()));
        }
    }

    fn start() -> Snapshot {
        Snapshot { last: LogId::ZERO, membership: Membership::of_voters([NodeId(1)]) }
    }

    fn runs() -> Few<Run> {
        let membership = Membership::of_voters([NodeId(1), NodeId(2)]);
        [
            Run::noop(Term(1), Index(1)),
            Run::commands(Term(1), Index(2), &["a", "b", "c"]).unwrap(),
            Run::membership(Term(2), Index(5), &membership),
            Run::commands(Term(2), Index(6), &["d"]).unwrap(),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn applies_each_kind_in_order_and_answers_whom_it_concerns() {
        let mut notes = Notes::default();
        let (waiting, mut answers): (Vec<_>, Vec<_>) = [3, 4, 6]
            .map(|index| {
                let (answer, outcome) = oneshot::channel();
                ((Index(index), answer), outcome)
            })
            .into_iter()
            .unzip();
        let gone = answers.remove(1);
        drop(gone);
        let mut at = start();
        let mut waiting = waiting.into_iter().peekable();
        let applied = apply(&mut notes, &runs(), &mut waiting, &AtomicBool::new(false), &mut at);
        let (last, membership) =
            (LogId::new(Term(2), Index(6)), Membership::of_voters([NodeId(1), NodeId(2)]));
        assert_eq!((applied, at), (Some(6), Snapshot { last, membership }));
        assert_eq!(
            notes.0,
            ["b\"a\" at 2@T1", "b\"b\" at 3@T1", "b\"c\" at 4@T1", "[n1, n2] at 5@T2", "b\"d\" at 6@T2"]
        );
        let replies: Vec<_> = answers.into_iter().map(|mut answer| answer.try_recv()).collect();
        assert_eq!(replies, [Ok(Ok(Bytes::from("2"))), Ok(Ok(Bytes::from("5")))]);
    }

    #[test]
    fn stops_between_two_entries_when_told_to() {
        let mut notes = Notes::default();
        let mut at = start();
        let mut nobody = Vec::new().into_iter().peekable();
        assert_eq!(apply(&mut notes, &runs(), &mut nobody, &AtomicBool::new(true), &mut at), None);
        assert_eq!((notes.0, at), (Vec::new(), start()));
    }
}
