//! Queues that are worked off in order, each by one worker at a time: on a thread of its own, on the runtime's threads for
//! work that blocks, or on the runtime itself.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    ops::ControlFlow,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;
#[cfg(feature = "virtual-time")]
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// Works off what is in a lane.
pub(crate) trait Worker<J>: Send + 'static {
    /// Does all of these, in order. `Break`: it is at its end, and nothing more is taken.
    fn work(&mut self, jobs: &mut VecDeque<J>) -> ControlFlow<()>;

    /// For how long nothing must have come before [`Worker::rest`]; `None`: it never rests. In a lane that borrows its threads
    /// none does.
    fn quiet(&self) -> Option<Duration> {
        None
    }

    /// Nothing has come for a while.
    fn rest(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Where the work is done.
#[derive(Clone)]
pub(crate) enum Runner {
    /// On threads.
    Threads(Handle),
    /// As tasks of the runtime: for tests in which time is virtual and chance is a seed. How long something takes is asked of
    /// this.
    #[cfg(feature = "virtual-time")]
    Inline(Handle, Pace),
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads(_) => "Threads",
            #[cfg(feature = "virtual-time")]
            Self::Inline(..) => "Inline",
        })
    }
}

/// How long the next piece of work of this kind takes.
#[cfg(feature = "virtual-time")]
pub(crate) type Pace = Arc<dyn Fn(Kind) -> Duration + Send + Sync>;

/// What is done in a lane.
#[cfg_attr(
    not(feature = "virtual-time"),
    expect(unreachable_pub, reason = "told to whoever sets a pace alone")
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Commits of the store.
    Store,
    /// Questions to the log.
    Read,
    /// The state machine's commands and reads.
    Apply,
}

/// How much a lane is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Nearly always: it has a thread of its own.
    Steady,
    /// Now and then, as one of very many: it borrows a thread.
    Now,
}

impl Runner {
    /// Does something that blocks, and waits for it. Given up, it is done all the same.
    ///
    /// # Errors
    /// If it panics, or the runtime is being shut down: says so.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        match self {
            Self::Threads(runtime) => runtime.spawn_blocking(work).await.map_err(|error| error.to_string()),
            #[cfg(feature = "virtual-time")]
            Self::Inline(..) => Ok(work()),
        }
    }

    /// Starts a lane. The worker is dropped when all of its senders have been, after what they sent was done; or at its end.
    pub(crate) fn lane<J: Send + 'static>(
        &self,
        name: impl FnOnce() -> String,
        #[cfg_attr(not(feature = "virtual-time"), expect(unused_variables, reason = "only for its pace"))]
        kind: Kind,
        usage: Use,
        worker: impl Worker<J>,
    ) -> io::Result<Sender<J>> {
        match (self, usage) {
            (Self::Threads(_), Use::Steady) => {
                let lane = Own::new();
                let own = lane.clone();
                thread::Builder::new().name(name()).spawn(move || own.run(worker))?;
                Ok(Sender::new(lane))
            }
            (Self::Threads(runtime), Use::Now) => Ok(Sender::new(Borrowed::new(worker, runtime.clone()))),
            #[cfg(feature = "virtual-time")]
            (Self::Inline(runtime, pace), _) => {
                let lane = Arc::new(Task { queue: Queue::new(), arrived: Notify::new() });
                runtime.spawn(lane.clone().run(worker, kind, pace.clone()));
                Ok(Sender::new(lane))
            }
        }
    }
}

/// Puts jobs into a lane. When the last clone is dropped, the lane ends.
pub(crate) struct Sender<J: Send + 'static>(Arc<Way<J>>);

struct Way<J: Send + 'static> {
    lane: Arc<dyn Lane<J>>,
}

impl<J: Send + 'static> Sender<J> {
    fn new(lane: Arc<dyn Lane<J>>) -> Self {
        Self(Arc::new(Way { lane }))
    }

    /// Puts a job in; gives it back if the lane is at its end.
    pub(crate) fn send(&self, job: J) -> Result<(), J> {
        self.0.lane.clone().push(job)
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lane.queue().lock().jobs.len()
    }
}

impl<J: Send + 'static> Clone for Sender<J> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J: Send + 'static> Drop for Way<J> {
    fn drop(&mut self) {
        self.lane.clone().close();
    }
}

trait Lane<J>: Send + Sync {
    fn queue(&self) -> &Queue<J>;
    fn push(self: Arc<Self>, job: J) -> Result<(), J>;
    /// Nothing more will come.
    fn close(self: Arc<Self>);
}

/// What waits in a lane.
struct Queue<J> {
    state: Mutex<State<J>>,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// Somebody may still send.
    open: bool,
    /// The worker is gone.
    over: bool,
    /// The worker is at work, or will be in a moment.
    busy: bool,
}

impl<J> Queue<J> {
    fn new() -> Self {
        let state = State { jobs: VecDeque::new(), open: true, over: false, busy: false };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing under the lock leaves the state half changed, even if it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job in. Says whether the worker has to be woken for it.
    fn push(&self, job: J) -> Result<bool, J> {
        let mut state = self.lock();
        if state.over {
            return Err(job);
        }
        state.jobs.push_back(job);
        Ok(!mem::replace(&mut state.busy, true))
    }

    /// Says whether the worker has to be woken, to leave.
    fn close(&self) -> bool {
        let mut state = self.lock();
        state.open = false;
        !state.over && !mem::replace(&mut state.busy, true)
    }

    /// Takes all that waits into `jobs`, which is empty.
    fn take(&self, jobs: &mut VecDeque<J>) -> Taken {
        let mut state = self.lock();
        if !state.jobs.is_empty() {
            mem::swap(&mut state.jobs, jobs);
            return Taken::Jobs;
        }
        state.busy = false;
        if state.open {
            Taken::Nothing
        } else {
            state.over = true;
            Taken::End
        }
    }

    /// The worker is at its end. What waits is dropped, outside of the lock: whoever waits for it may do anything then.
    fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        let waiting = mem::take(&mut state.jobs);
        drop(state);
        drop(waiting);
    }
}

enum Taken {
    Jobs,
    Nothing,
    End,
}

/// Ends its queue with the worker, also when that panics.
struct Ends<'a, J>(&'a Queue<J>);

impl<J> Drop for Ends<'_, J> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A lane with a thread of its own.
struct Own<J> {
    queue: Queue<J>,
    arrived: Condvar,
}

impl<J: Send> Own<J> {
    fn new() -> Arc<Self> {
        Arc::new(Self { queue: Queue::new(), arrived: Condvar::new() })
    }

    fn run(&self, mut worker: impl Worker<J>) {
        let _ends = Ends(&self.queue);
        let mut jobs = VecDeque::new();
        let mut rested = true;
        loop {
            let done = match self.queue.take(&mut jobs) {
                Taken::End => return,
                Taken::Jobs => {
                    rested = false;
                    worker.work(&mut jobs)
                }
                Taken::Nothing => {
                    let quiet = worker.quiet().filter(|_| !rested);
                    if self.wait(quiet) {
                        continue;
                    }
                    rested = true;
                    worker.rest()
                }
            };
            if done.is_break() {
                return;
            }
        }
    }

    /// Until something has come, or for so long; says whether something has.
    fn wait(&self, quiet: Option<Duration>) -> bool {
        let waits = |state: &mut State<J>| state.jobs.is_empty() && state.open;
        let state = self.queue.lock();
        let Some(quiet) = quiet else {
            drop(self.arrived.wait_while(state, waits));
            return true;
        };
        let waited = self.arrived.wait_timeout_while(state, quiet, waits);
        waited.is_ok_and(|(_, elapsed)| !elapsed.timed_out())
    }
}

impl<J: Send> Lane<J> for Own<J> {
    fn queue(&self) -> &Queue<J> {
        &self.queue
    }

    fn push(self: Arc<Self>, job: J) -> Result<(), J> {
        if self.queue.push(job)? {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn close(self: Arc<Self>) {
        self.queue.close();
        self.arrived.notify_one();
    }
}

/// Lends threads.
trait Lender: Clone + Send + Sync + 'static {
    /// Does this on a thread, and doesn't wait for it. Dropped undone if there are none any more.
    fn lend(&self, work: impl FnOnce() + Send + 'static);
}

impl Lender for Handle {
    fn lend(&self, work: impl FnOnce() + Send + 'static) {
        drop(self.spawn_blocking(work));
    }
}

/// A lane that borrows a thread while there is something to do.
struct Borrowed<J, W, L> {
    queue: Queue<J>,
    worker: Mutex<Option<W>>,
    lender: L,
}

impl<J: Send + 'static, W: Worker<J>, L: Lender> Borrowed<J, W, L> {
    fn new(worker: W, lender: L) -> Arc<Self> {
        Arc::new(Self { queue: Queue::new(), worker: Mutex::new(Some(worker)), lender })
    }

    fn run(&self) {
        let mut slot = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut worker) = slot.take() else { return };
        // Put back unless it is at its end: so it is dropped if it panics, too.
        let ends = Ends(&self.queue);
        let mut jobs = VecDeque::new();
        loop {
            match self.queue.take(&mut jobs) {
                Taken::End => return,
                Taken::Nothing => {
                    *slot = Some(worker);
                    mem::forget(ends);
                    return;
                }
                Taken::Jobs => {
                    if worker.work(&mut jobs).is_break() {
                        return;
                    }
                }
            }
        }
    }

    fn wake(self: Arc<Self>) {
        let lender = self.lender.clone();
        // If the runtime is being shut down nothing is done any more: what waits is dropped with the lane.
        lender.lend(move || self.run());
    }
}

impl<J: Send + 'static, W: Worker<J>, L: Lender> Lane<J> for Borrowed<J, W, L> {
    fn queue(&self) -> &Queue<J> {
        &self.queue
    }

    fn push(self: Arc<Self>, job: J) -> Result<(), J> {
        if self.queue.push(job)? {
            self.wake();
        }
        Ok(())
    }

    fn close(self: Arc<Self>) {
        if self.queue.close() {
            self.wake();
        }
    }
}

/// A lane that is a task.
#[cfg(feature = "virtual-time")]
struct Task<J> {
    queue: Queue<J>,
    arrived: Notify,
}

#[cfg(feature = "virtual-time")]
impl<J: Send> Task<J> {
    async fn run(self: Arc<Self>, mut worker: impl Worker<J>, kind: Kind, pace: Pace) {
        let _ends = Ends(&self.queue);
        let mut jobs = VecDeque::new();
        let mut rested = true;
        loop {
            let done = match self.queue.take(&mut jobs) {
                Taken::End => return,
                Taken::Jobs => {
                    rested = false;
                    sleep(pace(kind)).await;
                    worker.work(&mut jobs)
                }
                Taken::Nothing => match worker.quiet().filter(|_| !rested) {
                    Some(quiet) if timeout(quiet, self.arrived.notified()).await.is_err() => {
                        rested = true;
                        worker.rest()
                    }
                    Some(_) => continue,
                    None => {
                        self.arrived.notified().await;
                        continue;
                    }
                },
            };
            if done.is_break() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(feature = "virtual-time")]
impl<J: Send> Lane<J> for Task<J> {
    fn queue(&self) -> &Queue<J> {
        &self.queue
    }

    fn push(self: Arc<Self>, job: J) -> Result<(), J> {
        if self.queue.push(job)? {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn close(self: Arc<Self>) {
        self.queue.close();
        self.arrived.notify_one();
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod races;
