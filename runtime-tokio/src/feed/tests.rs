//! Feeds over a log in memory.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Wake, Waker},
    time::Duration,
};

use proptest::prelude::*;
use quorate_core::{Membership, NodeId, Term};

use super::*;
use crate::error::StopReason;

/// The log of a node, and what it has applied: what feeds are held against.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    /// Every entry there ever was, from 1, also those that came in a snapshot.
    entries: Vec<Entry>,
    /// As they were appended; those up to `base` can't be read.
    runs: Vec<Run>,
    base: Index,
    loads: usize,
    /// How often a load is polled before it ends, and whether it has looked by then.
    slow: usize,
    look_late: bool,
    stopped: Option<Stopped>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }

    /// Appends runs of so many commands each of so many bytes; nothing is applied by that.
    fn append(&self, counts: &[usize], bytes: usize) -> Few<Run> {
        let mut log = self.lock();
        let runs: Few<Run> = counts
            .iter()
            .map(|count| {
                let first = log.entries.len() as u64 + 1;
                let term = Term(1 + first / 50);
                let run = match count {
                    0 if first.is_multiple_of(2) => Run::noop(term, Index(first)),
                    0 => Run::membership(term, Index(first), &Membership::of_voters([NodeId(first)])),
                    count => {
                        let text = |n| format!("{:0>bytes$}", first + n as u64);
                        let commands: Vec<_> = (0..*count).map(text).collect();
                        Run::commands(term, Index(first), &commands).unwrap()
                    }
                };
                log.entries.extend(run.entries());
                run
            })
            .collect();
        log.runs.extend(runs.iter().cloned());
        runs
    }

    fn recent(&self, max_bytes: usize) -> Arc<Recent> {
        Arc::new(Recent::new(Index(0), max_bytes, self.clone()))
    }
}

impl Log {
    fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    fn read(&self, first: Index, last: Index, max_bytes: usize) -> Result<FromLog, Stopped> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        if first <= self.base {
            let snapshot = LogId::new(Term(9), self.base.next());
            return Ok(FromLog::Compacted { base: self.base, snapshot });
        }
        let run = self.runs.iter().find(|run| run.last() >= first).unwrap();
        let run = run.starting_at(first).and_then(|run| run.ending_before(last.next())).unwrap();
        Ok(FromLog::Entries(Few::one(run.within(max_bytes))))
    }
}

impl LoadLog for World {
    fn load(&self, first: Index, last: Index, max_bytes: usize) -> BoxFuture<Result<FromLog, Stopped>> {
        assert!(first <= last && last <= self.lock().last(), "asked for {first} to {last}");
        self.lock().loads += 1;
        let world = self.clone();
        Box::pin(async move {
            let early = world.lock().read(first, last, max_bytes);
            let slow = world.lock().slow;
            for _ in 0..slow {
                tokio::task::yield_now().await;
            }
            let log = world.lock();
            if log.look_late { log.read(first, last, max_bytes) } else { early }
        })
    }
}

/// A feed that is only polled when it was woken, as a runtime does it.
struct Reader {
    feed: Feed,
    woken: Arc<Flag>,
    started: Index,
    told: Vec<FeedItem>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl Reader {
    fn new(recent: &Arc<Recent>, from: u64, max_bytes: usize) -> Self {
        let feed = Feed::new(recent.clone(), Index(from)).max_bytes(max_bytes);
        Self {
            started: feed.position(),
            feed,
            woken: Arc::new(Flag(AtomicBool::new(true))),
            told: Vec::new(),
        }
    }

    /// Takes so many items, as far as there are some.
    fn take(&mut self, items: usize) {
        let waker = Waker::from(self.woken.clone());
        let wanted = self.told.len() + items;
        while self.told.len() < wanted && self.woken.0.swap(false, SeqCst) {
            match self.feed.poll_item(&mut Context::from_waker(&waker)) {
                Poll::Ready(item) => {
                    self.told.push(item.unwrap());
                    self.woken.0.store(true, SeqCst);
                }
                Poll::Pending => {}
            }
        }
    }

    /// What was told is the log, each entry once, but for gaps that were compacted.
    fn check(&self, log: &Log, max_bytes: usize) {
        let mut next = self.started;
        for item in &self.told {
            match item {
                FeedItem::Entries(entries) => {
                    assert_eq!(entries.first(), next);
                    assert!(entries.bytes() <= max_bytes || entries.first() == entries.last());
                    for entry in entries.iter() {
                        assert_eq!(entry, log.entries[next.0 as usize - 1]);
                        next = next.next();
                    }
                    assert_eq!(entries.last().next(), next);
                }
                FeedItem::Gap { from, to, snapshot } => {
                    assert_eq!(*from, next);
                    assert!(from <= to && *to <= log.base && snapshot.index >= *to, "{item:?}");
                    next = to.next();
                }
            }
        }
        assert_eq!(next, self.feed.position());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply {
        counts: Vec<usize>,
        bytes: usize,
    },
    /// Parts of the log are replaced by a snapshot: a share of it, in percent.
    Compact {
        share: u64,
    },
    /// A leader has sent a snapshot that is so many entries ahead.
    Restore {
        ahead: Vec<usize>,
    },
    Subscribe {
        share: u64,
        max_bytes: usize,
    },
    Read {
        pick: usize,
        items: usize,
    },
    Drop {
        pick: usize,
    },
    Loads {
        slow: usize,
        look_late: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let counts = || prop::collection::vec(0..6_usize, 1..4);
    prop_oneof![
        8 => (counts(), 1..40_usize).prop_map(|(counts, bytes)| Step::Apply { counts, bytes }),
        2 => (0..=100_u64).prop_map(|share| Step::Compact { share }),
        1 => counts().prop_map(|ahead| Step::Restore { ahead }),
        2 => (0..120_u64, 1..200_usize).prop_map(|(share, max_bytes)| Step::Subscribe { share, max_bytes }),
        10 => (0..8_usize, 1..6_usize).prop_map(|(pick, items)| Step::Read { pick, items }),
        1 => (0..8_usize).prop_map(|pick| Step::Drop { pick }),
        1 => (0..4_usize, any::<bool>()).prop_map(|(slow, look_late)| Step::Loads { slow, look_late }),
    ]
}

fn runs_through(ring: usize, steps: Vec<Step>) {
    let world = World::default();
    let recent = world.recent(ring);
    let mut readers: Vec<(Reader, usize)> = Vec::new();
    for step in steps {
        let last = world.lock().last().0;
        match step {
            Step::Apply { counts, bytes } => recent.push(&world.append(&counts, bytes)),
            Step::Compact { share } => {
                let mut log = world.lock();
                log.base = log.base.max(Index(last * share / 100));
            }
            Step::Restore { ahead } => {
                world.append(&ahead, 3);
                let to = LogId::new(Term(9), world.lock().last());
                world.lock().base = to.index;
                recent.restored(to);
            }
            Step::Subscribe { share, max_bytes } => {
                readers.push((Reader::new(&recent, last * share / 100, max_bytes), max_bytes));
            }
            Step::Read { pick, items } => {
                if let Some((reader, _)) = readers.get_mut(pick) {
                    reader.take(items);
                }
            }
            Step::Drop { pick } if pick < readers.len() => {
                let (reader, max_bytes) = readers.swap_remove(pick);
                reader.check(&world.lock(), max_bytes);
            }
            Step::Drop { .. } => {}
            Step::Loads { slow, look_late } => {
                let mut log = world.lock();
                (log.slow, log.look_late) = (slow, look_late);
            }
        }
        let ring_bytes: usize = recent.ring_bytes();
        assert!(ring_bytes <= ring, "{ring_bytes} bytes in the ring");
    }
    for (mut reader, max_bytes) in readers {
        reader.take(10_000);
        reader.check(&world.lock(), max_bytes);
        let end = world.lock().last().next().max(reader.started);
        assert_eq!(reader.feed.position(), end, "nothing is left behind");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_feed_tells_the_log_but_for_what_is_compacted(
        ring in prop_oneof![Just(0_usize), 100..2000_usize],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        runs_through(ring, steps);
    }
}

/// The next item; fails instead of waiting for ever: time goes by when nobody has anything to do.
async fn told(feed: &mut Feed) -> Result<FeedItem, FeedError> {
    tokio::time::timeout(Duration::from_secs(60), feed.next()).await.expect("nothing comes")
}

fn indexes(item: Result<FeedItem, FeedError>) -> (u64, u64) {
    match item.unwrap() {
        FeedItem::Entries(entries) => (entries.first().0, entries.last().0),
        gap @ FeedItem::Gap { .. } => panic!("{gap:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_up_is_told_from_memory_and_who_does_not_from_the_log() {
    let world = World::default();
    let recent = world.recent(2000);
    recent.push(&world.append(&[2, 2], 1));
    assert_eq!(recent.ring_bytes(), 0, "nobody listens");
    let mut quick = Feed::new(recent.clone(), Index(5));
    let mut slow = Feed::new(recent.clone(), Index(0)).max_bytes(20);
    for round in 0..100 {
        recent.push(&world.append(&[3], 10));
        assert_eq!(indexes(told(&mut quick).await), (5 + 3 * round, 7 + 3 * round));
    }
    assert_eq!(world.lock().loads, 0);
    let mut next = 1;
    while next <= 304 {
        let (first, last) = indexes(told(&mut slow).await);
        assert_eq!(first, next);
        next = last + 1;
    }
    let loads = world.lock().loads;
    assert!((200..290).contains(&loads), "{loads} loads: the last of them came from the ring");
    drop((quick, slow));
    recent.push(&world.append(&[1], 1));
    assert_eq!(recent.ring_bytes(), 0, "nobody listens any more");
}

#[tokio::test(start_paused = true)]
async fn to_give_up_waiting_loses_nothing() {
    let world = World::default();
    let recent = world.recent(2000);
    let mut feed = Feed::new(recent.clone(), Index(1));
    world.lock().slow = 3;
    for round in 1..=20 {
        for _ in 0..round % 5 {
            tokio::select! {
                biased;
                item = feed.next() => panic!("{item:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let runs = world.append(&[1], 5);
        if round % 2 == 0 {
            recent.push(&runs);
        } else {
            // As if it had gone through the ring already.
            recent.restored(runs.last().unwrap().last_id());
        }
        tokio::select! {
            biased;
            item = feed.next() => assert_eq!((round % 2, indexes(item)), (0, (round, round))),
            () = tokio::task::yield_now() => assert_eq!(indexes(told(&mut feed).await), (round, round)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_ends_with_its_node_and_says_why() {
    let world = World::default();
    let recent = world.recent(2000);
    let stopped = Stopped { why: StopReason::Shutdown };
    let mut feed = Feed::new(recent.clone(), Index(1));
    let mut waits = Feed::new(recent.clone(), Index(9));
    recent.push(&world.append(&[2], 1));
    let waiting = tokio::spawn(async move { told(&mut waits).await });
    let mut asks = Feed::new(world.recent(0), Index(1));
    tokio::task::yield_now().await;
    recent.stop(stopped.clone());
    assert_eq!(indexes(told(&mut feed).await), (1, 2), "what is in memory is told");
    assert_eq!(told(&mut feed).await, Err(FeedError::Stopped(stopped.clone())));
    assert_eq!(told(&mut feed).await, Err(FeedError::Stopped(stopped.clone())));
    assert!(poll_fn(|context| Pin::new(&mut feed).poll_next(context)).await.is_none());
    assert_eq!(waiting.await.unwrap(), Err(FeedError::Stopped(stopped.clone())));
    // Whoever asks the log of a node that has stopped is told by it.
    world.lock().stopped = Some(stopped.clone());
    asks.recent.push(&world.append(&[1], 1));
    asks.next = Index(1);
    assert_eq!(told(&mut asks).await, Err(FeedError::Stopped(stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_its_error_once() {
    let world = World::default();
    let recent = world.recent(2000);
    let mut feed = Feed::new(recent.clone(), Index(1));
    recent.push(&world.append(&[2], 1));
    recent.stop(Stopped { why: StopReason::Dropped });
    let mut told = Vec::new();
    while let Some(item) = poll_fn(|context| Pin::new(&mut feed).poll_next(context)).await {
        told.push(item.map(drop));
    }
    let stopped = Stopped { why: StopReason::Dropped };
    assert_eq!(told, [Ok(()), Err(FeedError::Stopped(stopped))]);
}

/// A store that answers with something else is found out.
#[tokio::test(start_paused = true)]
async fn entries_other_than_those_asked_for_end_the_feed() {
    struct Wrong(u64);

    impl LoadLog for Wrong {
        fn load(&self, _: Index, _: Index, _: usize) -> BoxFuture<Result<FromLog, Stopped>> {
            let runs = match self.0 {
                0 => Few::new(),
                first => Few::one(Run::noop(Term(1), Index(first))),
            };
            Box::pin(async move { Ok(FromLog::Entries(runs)) })
        }
    }

    for first in [0, 4] {
        let mut feed = Feed::new(Arc::new(Recent::new(Index(5), 0, Wrong(first))), Index(3));
        let found = (first > 0).then_some(Index(first));
        assert_eq!(told(&mut feed).await, Err(FeedError::Missing { wanted: Index(3), found }));
    }
}
