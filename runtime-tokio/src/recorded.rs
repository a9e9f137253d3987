//! The core as the driver holds it: with whoever takes down what it is told and when it is asked.

use std::ops::Deref;

use quorate_core::{Action, Input, Instant, Raft, Rejected};

#[cfg(feature = "record")]
use crate::record::Recorder;

/// A [`Raft`], and maybe a recorder. All that changes the core, or that depends on when it is done, goes through here.
pub(crate) struct Recorded {
    raft: Raft,
    #[cfg(feature = "record")]
    recorder: Option<Recorder>,
}

impl Recorded {
    pub(crate) const fn new(raft: Raft, #[cfg(feature = "record")] recorder: Option<Recorder>) -> Self {
        Self {
            raft,
            #[cfg(feature = "record")]
            recorder,
        }
    }

    // Inlined as the core's own is: so only the code for that input is run.
    #[inline(always)]
    pub(crate) fn step(&mut self, now: Instant, input: Input) -> Result<(), Rejected> {
        #[cfg(feature = "record")]
        if let Some(recorder) = &mut self.recorder {
            recorder.step(now, &input);
        }
        self.raft.step(now, input)
    }

    /// The next thing to do.
    #[inline]
    pub(crate) fn poll(&mut self) -> Option<Action> {
        let action = self.raft.poll();
        #[cfg(feature = "record")]
        if let Some(recorder) = &mut self.recorder {
            recorder.polled(&self.raft, action.as_ref());
            if recorder.is_over() {
                self.recorder = None;
            }
        }
        action
    }
}

#[cfg(feature = "record")]
impl Recorded {
    /// The node has come to its end: what there is of an end that should not be is kept.
    pub(crate) const fn stopped(&mut self, why: &crate::error::StopReason) {
        if let Some(recorder) = &mut self.recorder {
            recorder.stopped(why);
        }
    }
}

/// Looks change nothing.
impl Deref for Recorded {
    type Target = Raft;

    fn deref(&self) -> &Raft {
        &self.raft
    }
}
