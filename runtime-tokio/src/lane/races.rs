use std::{
    iter,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use shuttle::{
    rand::{Rng as _, thread_rng},
    sync::mpsc,
    thread::{Builder, JoinHandle, current},
};

use super::*;
use crate::races::check;

/// Who sends, and how many jobs each.
const SENDERS: usize = 3;
const EACH: usize = 3;

/// What a job is told to do.
enum What {
    Work,
    Break,
    Panic,
    /// Let go of this sender.
    LetGo {
        _sender: Sender<Job>,
    },
}

/// A panic that is no failure.
struct ToldTo;

struct Job {
    sender: usize,
    number: usize,
    what: What,
    _counted: Counted,
}

/// Counts what there is of something.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Relaxed);
        Self(all.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    /// The job of this sender and number is done.
    Done(usize, usize),
    Rested,
    Gone,
}

/// The name of threads that the worker may be on.
const ITS: &str = "worker";

/// Tells what it does. Each time it tells something others may get their turn.
struct Teller {
    heard: mpsc::Sender<Heard>,
    inside: AtomicBool,
    quiet: Option<Duration>,
    /// It is at its end when it has rested once.
    rests_once: bool,
    /// It is on its own threads alone, and dropped there, for that may take long: never on that of whoever sends.
    on_its_own: bool,
}

impl Teller {
    fn alone<T>(&self, within: impl FnOnce() -> T) -> T {
        assert!(!self.inside.swap(true, Relaxed), "on two threads at once");
        assert!(!self.on_its_own || current().name() == Some(ITS), "on a thread of somebody else");
        let result = within();
        self.inside.store(false, Relaxed);
        result
    }

    fn tell(&self, heard: Heard) {
        self.alone(|| self.heard.send(heard).expect("somebody listens to the end"));
    }
}

impl Worker<Job> for Teller {
    fn work(&mut self, jobs: &mut VecDeque<Job>) -> ControlFlow<()> {
        assert!(!jobs.is_empty(), "woken for nothing");
        for Job { sender, number, what, .. } in jobs.drain(..) {
            self.tell(Heard::Done(sender, number));
            match what {
                What::Work => {}
                What::Break => return ControlFlow::Break(()),
                What::Panic => resume_unwind(Box::new(ToldTo)),
                What::LetGo { _sender } => drop(_sender),
            }
        }
        ControlFlow::Continue(())
    }

    fn quiet(&self) -> Option<Duration> {
        self.quiet
    }

    fn rest(&mut self) -> ControlFlow<()> {
        self.tell(Heard::Rested);
        if self.rests_once { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell(Heard::Gone);
    }
}

/// Lends threads, and knows which; or none.
#[derive(Clone, Default)]
struct Threads {
    none: bool,
    lent: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
    /// How many are at work.
    at_work: Arc<AtomicUsize>,
}

impl Threads {
    /// Waits for all to be given back.
    fn come_back(&self) {
        loop {
            let thread = self.lent.lock().unwrap().pop();
            let Some(thread) = thread else { return };
            thread.join().expect("panics are caught");
        }
    }
}

impl Lender for Threads {
    fn lend(&self, work: impl FnOnce() + Send + 'static) {
        if !self.none {
            let at_work = Counted::new(&self.at_work);
            // One that is about to give it back, and the next.
            assert!(self.at_work.load(Relaxed) <= 2, "borrows more than it needs");
            let thread = on_its_thread(|| {
                work();
                drop(at_work);
            });
            self.lent.lock().unwrap().push(thread);
        }
    }
}

fn on_its_thread(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    // Threads of shuttle must not panic, unless something is wrong.
    let work = || match catch_unwind(AssertUnwindSafe(work)) {
        Err(panic) if !panic.is::<ToldTo>() => resume_unwind(panic),
        Ok(()) | Err(_) => {}
    };
    Builder::new().name(ITS.into()).spawn(work).unwrap()
}

/// A lane, and what is heard of it.
struct Rig {
    sender: Sender<Job>,
    heard: mpsc::Receiver<Heard>,
    /// Jobs that are not dropped.
    jobs: Arc<AtomicUsize>,
    threads: Threads,
}

impl Rig {
    fn new(usage: Use, quiet: Option<Duration>, rests_once: bool, threads: Threads) -> Self {
        let (tell, heard) = mpsc::channel();
        let inside = AtomicBool::new(false);
        let teller = Teller { heard: tell, inside, quiet, rests_once, on_its_own: !threads.none };
        let sender = match usage {
            Use::Steady => {
                let lane = Own::new();
                let own = lane.clone();
                on_its_thread(move || own.run(teller));
                Sender::new(lane)
            }
            Use::Now => Sender::new(Borrowed::new(teller, threads.clone())),
        };
        Self { sender, heard, jobs: Arc::default(), threads }
    }

    fn own() -> Self {
        Self::new(Use::Steady, None, false, Threads::default())
    }

    fn borrowed() -> Self {
        Self::new(Use::Now, None, false, Threads::default())
    }

    fn job(&self, sender: usize, number: usize, what: What) -> Job {
        Job { sender, number, what, _counted: Counted::new(&self.jobs) }
    }

    /// Threads that send what `what` says. Each returns how many were taken, which were the first.
    fn send(&self, what: fn(usize, usize) -> What) -> Vec<JoinHandle<usize>> {
        let send = |sender| {
            let jobs: Vec<_> =
                (0..EACH).map(|number| self.job(sender, number, what(sender, number))).collect();
            let lane = self.sender.clone();
            thread::spawn(move || {
                let mut taken = 0;
                for job in jobs {
                    let number = job.number;
                    match lane.send(job) {
                        Ok(()) => {
                            assert_eq!(taken, number, "taken after one that was not");
                            taken += 1;
                        }
                        Err(job) => assert_eq!((job.sender, job.number), (sender, number)),
                    }
                }
                taken
            })
        };
        (0..SENDERS).map(send).collect()
    }

    /// What is heard until all senders are dropped and the worker is gone, which is the last.
    fn end(self) -> Vec<Heard> {
        let Self { sender, heard, jobs, threads } = self;
        drop(sender);
        let mut all: Vec<_> = heard.iter().collect();
        assert_eq!(all.pop(), Some(Heard::Gone));
        assert!(!all.contains(&Heard::Gone), "dropped twice");
        threads.come_back();
        assert_eq!(jobs.load(Relaxed), 0, "jobs are left over");
        all
    }
}

/// The numbers of one sender's jobs that were done, in the order in which they were.
fn done(heard: &[Heard], by: usize) -> Vec<usize> {
    let number = |heard: &Heard| match heard {
        Heard::Done(sender, number) if *sender == by => Some(*number),
        _ => None,
    };
    heard.iter().filter_map(number).collect()
}

fn numbers(end: usize) -> Vec<usize> {
    (0..end).collect()
}

const LANES: [fn() -> Rig; 2] = [Rig::own, Rig::borrowed];

fn a_lane() -> Rig {
    LANES[thread_rng().gen_range(0..LANES.len())]()
}

#[test]
fn each_job_is_done_once_and_in_order_though_nobody_sends_any_more() {
    check(|| {
        let lane = a_lane();
        let senders = lane.send(|_, _| What::Work);
        // As long as there is a sender nobody else wakes the worker up.
        let heard: Vec<_> = iter::from_fn(|| lane.heard.recv().ok()).take(SENDERS * EACH).collect();
        for (by, sender) in senders.into_iter().enumerate() {
            assert_eq!(sender.join().unwrap(), EACH);
            assert_eq!(done(&heard, by), numbers(EACH));
        }
        assert_eq!(lane.sender.len(), 0);
        assert_eq!(lane.end(), []);
    });
}

#[test]
fn the_worker_is_dropped_once_all_that_was_sent_is_done() {
    check(|| {
        let lane = a_lane();
        let senders = lane.send(|_, _| What::Work);
        // Any of them may be the last to let go.
        let heard = lane.end();
        for (by, sender) in senders.into_iter().enumerate() {
            assert_eq!(sender.join().unwrap(), EACH);
            assert_eq!(done(&heard, by), numbers(EACH));
        }
    });
}

#[test]
fn a_lane_without_a_job_ends_too() {
    check(|| assert_eq!(a_lane().end(), []));
}

#[test]
fn the_worker_itself_may_let_go_of_the_last_sender() {
    check(|| {
        let lane = a_lane();
        let what = What::LetGo { _sender: lane.sender.clone() };
        lane.sender.send(lane.job(0, 0, what)).ok().unwrap();
        assert_eq!(lane.end(), [Heard::Done(0, 0)]);
    });
}

/// The second job of the second sender ends the lane.
fn ends_early(what: fn(usize, usize) -> What) {
    let lane = a_lane();
    let senders = lane.send(what);
    let late = lane.sender.clone();
    let job = lane.job(9, 9, What::Work);
    let jobs = lane.jobs.clone();
    let Rig { sender, heard, threads, .. } = lane;
    let mut all: Vec<_> = heard.iter().collect();
    assert_eq!(all.pop(), Some(Heard::Gone));
    assert_eq!(all.last(), Some(&Heard::Done(1, 1)), "something was done after the end");
    // Once it is gone nothing is taken.
    assert_eq!(late.send(job).map_err(|job| (job.sender, job.number)), Err((9, 9)));
    for (by, sender) in senders.into_iter().enumerate() {
        let taken = sender.join().unwrap();
        let done = done(&all, by);
        assert_eq!(done, numbers(done.len()));
        assert!(done.len() <= taken);
    }
    // And what was taken and not done is dropped though there are senders.
    threads.come_back();
    assert_eq!(jobs.load(Relaxed), 0);
    drop((sender, late));
}

#[test]
fn nothing_is_done_or_taken_or_kept_once_the_worker_has_broken_off() {
    check(|| {
        ends_early(|sender, number| if (sender, number) == (1, 1) { What::Break } else { What::Work });
    });
}

#[test]
fn nothing_is_done_or_taken_or_kept_once_the_worker_has_panicked() {
    check(|| {
        ends_early(|sender, number| if (sender, number) == (1, 1) { What::Panic } else { What::Work });
    });
}

#[test]
fn rests_once_each_time_that_nothing_comes_for_a_while() {
    check(|| {
        let lane = Rig::new(Use::Steady, Some(Duration::from_secs(1)), false, Threads::default());
        let senders = lane.send(|_, _| What::Work);
        let mut heard = Vec::new();
        // It rests after the last, whenever that is.
        while heard.iter().filter(|heard| **heard != Heard::Rested).count() < SENDERS * EACH
            || heard.last() != Some(&Heard::Rested)
        {
            heard.push(lane.heard.recv().unwrap());
        }
        assert_ne!(heard[0], Heard::Rested, "nothing was done yet");
        assert!(heard.windows(2).all(|two| two != [Heard::Rested; 2]), "{heard:?}");
        for (by, sender) in senders.into_iter().enumerate() {
            assert_eq!(sender.join().unwrap(), EACH);
            assert_eq!(done(&heard, by), numbers(EACH));
        }
        assert_eq!(lane.end(), []);
    });
}

#[test]
fn may_end_with_a_rest() {
    check(|| {
        let lane = Rig::new(Use::Steady, Some(Duration::from_secs(1)), true, Threads::default());
        let senders = lane.send(|_, _| What::Work);
        let late = lane.sender.clone();
        let taken: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        let heard = lane.end();
        assert_eq!(heard.last(), Some(&Heard::Rested));
        assert_eq!(heard.iter().filter(|heard| **heard == Heard::Rested).count(), 1);
        for (by, taken) in taken.into_iter().enumerate() {
            let done = done(&heard, by);
            assert_eq!(done, numbers(done.len()));
            assert!(done.len() <= taken);
        }
        drop(late);
    });
}

#[test]
fn what_is_borrowed_is_given_back_and_borrowed_anew() {
    check(|| {
        let lane = Rig::borrowed();
        for round in 0..2 {
            let senders = lane.send(|_, _| What::Work);
            for sender in senders {
                assert_eq!(sender.join().unwrap(), EACH);
            }
            let lent = lane.threads.lent.lock().unwrap().len();
            assert!(0 < lent && lent <= SENDERS * EACH, "{lent} threads in round {round}");
            // Each of them is somebody else's to use while there is nothing to do.
            lane.threads.come_back();
            let heard: Vec<_> = lane.heard.try_iter().collect();
            for by in 0..SENDERS {
                assert_eq!(done(&heard, by), numbers(EACH), "all is done when the threads are back");
            }
        }
        assert_eq!(lane.end(), []);
    });
}

#[test]
fn without_threads_to_borrow_all_is_dropped_with_the_lane() {
    check(|| {
        let threads = Threads { none: true, ..Threads::default() };
        let lane = Rig::new(Use::Now, None, false, threads);
        let senders = lane.send(|_, _| What::Work);
        assert_eq!(lane.end(), [], "nothing is done");
        for sender in senders {
            assert_eq!(sender.join().unwrap(), EACH);
        }
    });
}
