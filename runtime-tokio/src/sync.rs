//! What threads share, of which there are two kinds: that of `std`; and, in unit tests with the feature `shuttle`, that of
//! shuttle, under which threads take turns in orders drawn from a seed. See `races`.
//!
//! `Arc` is not among it: shuttle has no other than that of `std`.

#[cfg(not(all(test, feature = "shuttle")))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(all(test, feature = "shuttle"))]
pub(crate) use self::timed::Condvar;
#[cfg(all(test, feature = "shuttle"))]
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(all(test, feature = "shuttle"))]
mod timed {
    use std::{
        sync::{
            Arc, LockResult, PoisonError,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        time::Duration,
    };

    use shuttle::{sync::MutexGuard, thread};

    /// That of shuttle, in which no time passes, with waits that time out: at any moment.
    pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

    pub(crate) struct WaitTimeoutResult(bool);

    impl WaitTimeoutResult {
        pub(crate) fn timed_out(&self) -> bool {
            self.0
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(Arc::new(shuttle::sync::Condvar::new()))
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn wait_while<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            condition: impl FnMut(&mut T) -> bool,
        ) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait_while(guard, condition)
        }

        pub(crate) fn wait_timeout_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            _: Duration,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            // Not of shuttle: they are this file's own, and no moments at which threads take turns.
            let [rung, heard] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let (clock, bell, ears) = (self.0.clone(), rung.clone(), heard.clone());
            thread::spawn(move || {
                // More than once: whoever is about to wait does not wait yet, and would miss it.
                while !ears.load(Relaxed) {
                    bell.store(true, Relaxed);
                    clock.notify_all();
                    thread::yield_now();
                }
            });
            let waited = loop {
                let waits = condition(&mut guard);
                if !waits || rung.load(Relaxed) {
                    break Ok((guard, WaitTimeoutResult(waits)));
                }
                match self.0.wait(guard) {
                    Ok(again) => guard = again,
                    Err(poisoned) => {
                        break Err(PoisonError::new((poisoned.into_inner(), WaitTimeoutResult(false))));
                    }
                }
            };
            heard.store(true, Relaxed);
            waited
        }
    }
}
