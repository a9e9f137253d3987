use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use quorate_core::{Entry, Snapshot};
use shuttle::{
    future::block_on,
    rand::{Rng as _, thread_rng},
    thread::{self, JoinHandle},
};

use super::*;
use crate::{control::Wish, races::check};

const SENDERS: usize = 3;
const PENDING: usize = 2;

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }
}

type Shared = Arc<Inbox<Nothing>>;

fn inbox(pending: usize) -> Shared {
    Arc::new(Inbox::new(Limits { pending, proposal_bytes: 1 << 20, message_bytes: 1 << 20 }))
}

/// Counts how reads have ended.
#[derive(Clone, Default)]
struct Reads {
    run: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct Read {
    reads: Reads,
    ended: bool,
}

impl Read {
    fn new(reads: &Reads) -> Box<Self> {
        Box::new(Self { reads: reads.clone(), ended: false })
    }
}

impl Reading<Nothing> for Read {
    fn run(mut self: Box<Self>, _: &Nothing, _: &Snapshot) {
        self.ended = true;
        self.reads.run.fetch_add(1, Relaxed);
    }

    fn refuse(mut self: Box<Self>, _: Refusal) {
        self.ended = true;
        self.reads.refused.fetch_add(1, Relaxed);
    }

    fn is_closed(&self) -> bool {
        false
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        if !self.ended {
            self.reads.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Sleeps until something waits, and takes it up.
fn next(inbox: &Inbox<Nothing>, work: &mut Work<Nothing>) {
    block_on(poll_fn(|context| inbox.poll(context)));
    inbox.take(work);
    assert!(!work.is_empty(), "woken for nothing");
}

/// Puts a command in, and waits for its outcome.
fn propose(inbox: &Inbox<Nothing>) -> Result<Bytes, Refusal> {
    let (answer, outcome) = oneshot::channel();
    inbox.propose(Bytes::new(), Answer::new(answer, Stages::none()))?;
    block_on(outcome).expect("whoever is taken in gets an outcome")
}

fn stopped() -> Stopped {
    Stopped { why: StopReason::Shutdown }
}

/// Each puts in something of another kind, and nobody comes after the last: each has to wake the driver by itself.
#[test]
fn the_driver_hears_of_all_that_is_put_in() {
    check(|| {
        let inbox = inbox(99);
        let put = |what: fn(&Inbox<Nothing>)| {
            let inbox = inbox.clone();
            thread::spawn(move || what(&inbox))
        };
        let all: [fn(&Inbox<Nothing>); 11] = [
            |inbox| {
                let answer = Answer::new(oneshot::channel().0, Stages::none());
                assert_eq!(inbox.propose(Bytes::new(), answer), Ok(()));
            },
            |inbox| inbox.read(Read::new(&Reads::default()), Consistency::Linearizable),
            |inbox| inbox.read(Read::new(&Reads::default()), Consistency::AtLeast(Index(1))),
            |inbox| assert_eq!(inbox.ask(oneshot::channel().0), Ok(())),
            |inbox| {
                let control = Control { wish: Wish::Campaign, answer: oneshot::channel().0 };
                assert_eq!(inbox.control(control), Ok(()));
            },
            |inbox| assert_eq!(inbox.snapshot(oneshot::channel().0), Ok(())),
            |inbox| inbox.news(News::Restored { at: Index(1), bytes: 0 }),
            |inbox| inbox.touch(NodeId(2), true),
            |inbox| {
                let body = Body::TimeoutNow;
                assert!(inbox.receive(NodeId(2), Message { term: quorate_core::Term(1), body }));
            },
            |inbox| inbox.applied(Index(1)),
            |inbox| inbox.input(Input::Campaign),
        ];
        // Few at a time: more threads, and it would be rarer that two of them meet.
        let mut missing = 3;
        let first = thread_rng().gen_range(0..all.len());
        let putting: Vec<_> = (first..first + missing).map(|which| put(all[which % all.len()])).collect();
        while missing > 0 {
            let mut work = Work::new();
            next(&inbox, &mut work);
            missing -= work.proposals.len()
                + work.reads.len()
                + work.reads_at.len()
                + work.questions.len()
                + work.controls.len()
                + work.snapshots.len()
                + work.news.len()
                + work.touch.len()
                + work.messages.len()
                + usize::from(work.applied.is_some())
                + work.inputs.len();
        }
        putting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// As when the driver's task moves, or what it waits with is made anew.
#[test]
fn whoever_polls_last_is_woken() {
    check(|| {
        let inbox = inbox(99);
        let early = inbox.clone();
        let once = thread::spawn(move || {
            block_on(poll_fn(|context| {
                let _nothing_or_something = early.poll(context);
                Poll::Ready(())
            }));
        });
        let late = inbox.clone();
        let putting = thread::spawn(move || late.applied(Index(1)));
        once.join().unwrap();
        let mut work = Work::new();
        next(&inbox, &mut work);
        assert_eq!(work.applied, Some(Index(1)));
        putting.join().unwrap();
    });
}

/// Answers what it takes up, so many times and until it is told to stop at most, and closes then. Says how many proposals
/// that were.
fn drive(inbox: &Inbox<Nothing>, times: usize) -> usize {
    let mut answered = 0;
    for _ in 0..times {
        let mut work = Work::new();
        next(inbox, &mut work);
        for proposed in work.proposals {
            proposed.answer.send(Ok(Bytes::new()));
            answered += 1;
        }
        for read in work.reads {
            let at = Snapshot {
                last: quorate_core::LogId::ZERO,
                membership: quorate_core::Membership::of_voters([NodeId(1)]),
            };
            read.run(&Nothing, &at);
        }
        if work.stop.is_some() {
            break;
        }
    }
    inbox.close(&stopped());
    answered
}

#[test]
fn each_request_is_taken_up_or_refused_once_also_while_it_closes() {
    check(|| {
        let (inbox, reads) = (inbox(99), Reads::default());
        let driver = inbox.clone();
        // By itself, as when it fails; or when it is told to, which is before.
        let by_itself = thread_rng().r#gen();
        let times = if by_itself { thread_rng().gen_range(0..3) } else { usize::MAX };
        let driver = thread::spawn(move || drive(&driver, times));
        let sending = |_| {
            let (inbox, reads) = (inbox.clone(), reads.clone());
            thread::spawn(move || {
                let mut outcomes = Vec::new();
                for _ in 0..2 {
                    inbox.read(Read::new(&reads), Consistency::Linearizable);
                    outcomes.push(propose(&inbox));
                }
                outcomes
            })
        };
        let sending: Vec<JoinHandle<_>> = (0..SENDERS).map(sending).collect();
        if !by_itself {
            inbox.stop(StopReason::Shutdown);
            assert_eq!(propose(&inbox), Err(Refusal::Stopped(stopped())), "no requests from now on");
        }
        let answered = driver.join().unwrap();
        let outcomes: Vec<_> = sending.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let (done, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), answered);
        assert!(refused.iter().all(|outcome| *outcome == Err(Refusal::Stopped(stopped()))));
        let [run, refused, dropped] =
            [&reads.run, &reads.refused, &reads.dropped].map(|count| count.load(Relaxed));
        assert_eq!((run + refused, dropped), (2 * SENDERS, 0));
        assert!(!inbox.receive(NodeId(2), Message { term: quorate_core::Term(1), body: Body::TimeoutNow }));
        assert!(inbox.lock().work.is_empty(), "nothing is kept");
    });
}

#[test]
fn no_more_proposals_than_its_bound_are_without_an_outcome() {
    check(|| {
        let inbox = inbox(PENDING);
        let sending = |_| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                let mut accepted = 0;
                for _ in 0..2 {
                    match propose(&inbox) {
                        Ok(_) => accepted += 1,
                        Err(refusal) => assert!(matches!(refusal, Refusal::Overloaded(_)), "{refusal:?}"),
                    }
                }
                accepted
            })
        };
        let sending: Vec<JoinHandle<usize>> = (0..SENDERS).map(sending).collect();
        let driver = inbox.clone();
        let driver = thread::spawn(move || {
            let (mut held, mut answered) = (Vec::new(), 0);
            loop {
                let mut work = Work::new();
                if held.is_empty() {
                    next(&driver, &mut work);
                } else {
                    driver.take(&mut work);
                }
                held.append(&mut work.proposals);
                let waiting = driver.lock().work.proposals.len();
                assert!(held.len() + waiting <= PENDING, "{} held, {waiting} waiting", held.len());
                let known = driver.depth().proposals;
                assert!((held.len() + waiting..=PENDING).contains(&known), "{known} are known");
                // Some of them, and the rest when others have come, or have not.
                for proposed in held.drain(..thread_rng().gen_range(0..=held.len())) {
                    proposed.answer.send(Ok(Bytes::new()));
                    answered += 1;
                }
                if work.stop.is_some() {
                    driver.close(&stopped());
                    return answered;
                }
            }
        });
        let accepted: usize = sending.into_iter().map(|thread| thread.join().unwrap()).sum();
        inbox.stop(StopReason::Shutdown);
        assert_eq!(driver.join().unwrap(), accepted);
        assert!(accepted >= PENDING, "there was room for so many");
        assert_eq!(inbox.depth().proposals, 0);
    });
}
