//! Wakes the driver when the core wants to hear that time has passed.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use quorate_core::Instant;
use tokio::time::{self, Sleep};

use crate::clock::Clock;

/// One timer, set anew only when it must ring earlier or has rung: a follower's deadline moves away with every message,
/// and to ring once too early costs less than to move the timer each time.
pub(crate) struct Alarm {
    clock: Clock,
    sleep: Pin<Box<Sleep>>,
    set_for: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, sleep: Box::pin(time::sleep(Duration::ZERO)), set_for: None }
    }

    /// Rings at `deadline`, or before.
    pub(crate) fn set(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.set_for.is_none_or(|set_for| deadline < set_for) {
            let wait = Duration::from_micros(deadline.since(self.clock.now()));
            self.sleep.as_mut().reset(time::Instant::now() + wait);
            self.set_for = Some(deadline);
        }
    }

    /// Ready when it rings.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.set_for.is_none() || self.sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.set_for = None;
        Poll::Ready(())
    }
}
