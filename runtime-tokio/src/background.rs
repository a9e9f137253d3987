//! Work that takes long and that nobody waits for but the group itself: it gives way to all else on the machine.

use std::thread;

use tracing::debug;

use crate::lane::Runner;

/// By how much, as Unix counts: where all cores are busy it gets about a tenth of what others get; and else all that they leave.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

impl Runner {
    /// Does something that takes much of a processor, and waits for it: on a thread of its own, whose priority is low where
    /// that can be said of one thread. Commits go on beside it, of other groups and of other nodes on this machine.
    ///
    /// A thread can't take its old priority back without privileges: so none is lent for this that has other things to do.
    pub(crate) fn giving_way<T: Send>(&self, name: &str, mut work: impl FnMut() -> T + Send) -> T {
        let runtime = match self {
            Self::Threads(runtime) => runtime,
            #[cfg(feature = "virtual-time")]
            Self::Inline(..) => return work(),
        };
        let mut done = None;
        thread::scope(|scope| {
            let builder = thread::Builder::new().name(name.to_owned());
            let started = builder.spawn_scoped(scope, || {
                let _as_the_caller = runtime.enter();
                give_way();
                done = Some(work());
            });
            if let Err(error) = started {
                debug!(%error, "no thread that gives way");
            }
        });
        done.unwrap_or_else(work)
    }
}

/// Elsewhere than on Linux it would be the whole process that does.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // The whole process may be small already.
        let smaller = getpriority_process(None).and_then(|now| setpriority_process(None, now.max(NICE)));
        if let Err(error) = smaller {
            debug!(%error, "a thread keeps its priority");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_gives_way_is_done_elsewhere_and_the_caller_keeps_its_priority() {
        let runner = Runner::Threads(tokio::runtime::Handle::current());
        let (caller, before) = (thread::current().id(), nice());
        let mut done = 0;
        let there = runner.giving_way("gives-way", || {
            done += 1;
            tokio::runtime::Handle::current().spawn(async {});
            (thread::current().id(), nice())
        });
        assert_ne!(there.0, caller);
        assert_eq!(done, 1);
        #[cfg(target_os = "linux")]
        assert_eq!((there.1, nice()), (before.max(NICE), before));
    }

    #[cfg(target_os = "linux")]
    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[cfg(not(target_os = "linux"))]
    const fn nice() {}
}
