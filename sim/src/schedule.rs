//! A run that failed, written down: how the cluster was set up, and all that was done to it, one line each. What is in such a file
//! depends on no dice: it replays as long as the cluster itself understands it.
//!
//! Where nothing that was done is wrong in itself (nobody was elected in time, say), the file holds what the run was drawn from
//! instead, and replaying it is running that again.

mod file;
mod shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use file::ScheduleError;
use file::{Header, hex};
pub use shrink::Shrinking;

use crate::{
    Options, Trace, Violation,
    cast::Cast,
    lab::{Lab, Setup},
    op::Timed,
    violation::Broken,
    watch::Watch,
    words_of,
    world::World,
};

/// A run to be done again.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub(crate) options: Options,
    setup: Setup,
    /// What it broke when it was written down.
    violation: Option<Violation>,
    /// A hash of every input and every action, up to there.
    digest: u64,
    ops: Vec<Timed>,
    /// What the user has brought.
    cast: Cast,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        let parts = |schedule: &Self| (schedule.header_parts(), schedule.ops.clone());
        parts(self) == parts(other)
    }
}

/// What came of a schedule.
#[derive(Clone, PartialEq, Debug)]
pub struct Replayed {
    /// What it breaks now.
    pub violation: Option<Violation>,
    /// Is it what was broken when it was written down?
    pub same: bool,
    /// Was every input and every action the same, to the bit?
    pub to_the_bit: bool,
}

/// One run of a list: what it broke after how many of them, and the digest.
struct Ended {
    broken: Option<Broken>,
    at: u64,
    performed: usize,
    digest: u64,
}

impl Schedule {
    /// Runs a seed, and writes down what was done if it breaks something.
    #[must_use]
    pub fn record(options: &Options) -> Option<Self> {
        Self::record_with(options, &Cast::default())
    }

    pub(crate) fn record_with(options: &Options, cast: &Cast) -> Option<Self> {
        let recorded = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(options, cast, Trace::Off, Vec::new());
            world.lab.record();
            let verdict = catch_unwind(AssertUnwindSafe(|| world.go()));
            let broken = match verdict {
                Ok(Ok(())) => return None,
                Ok(Err(broken)) => broken,
                Err(payload) => Broken("panic", words_of(&*payload)),
            };
            let ops = world.lab.tape.take().unwrap_or_default();
            Some((world.lab.setup.clone(), ops, broken, world.now))
        }));
        let (setup, ops, Broken(invariant, what), at) = recorded.ok().flatten()?;
        let violation = Violation { invariant, seed: options.seed, at, what };
        let mut schedule =
            Self { options: options.clone(), setup, violation: Some(violation), digest: 0, ops, cast: cast.clone() };
        let ended = schedule.perform(Trace::Off, Vec::new());
        if ended.broken.as_ref().map(|broken| broken.0) == Some(invariant) {
            schedule.ops.truncate(ended.performed);
            schedule.digest = ended.digest;
        } else {
            // No single thing that was done shows it: the run itself must be done again.
            schedule.ops.clear();
            schedule.digest = digest_of(options, cast);
        }
        Some(schedule)
    }

    /// What it broke when it was written down.
    #[must_use]
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// How many things are done; 0 if it is the whole run that is done again.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ops.len()
    }

    /// Is it the whole run that is done again?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many nodes there are at the beginning.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.setup.nodes
    }

    /// Does it again.
    #[must_use]
    pub fn replay(&self, trace: Trace) -> Replayed {
        self.replay_watched(trace, Vec::new())
    }

    pub(crate) fn replay_watched(&self, trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Replayed {
        let before = self.violation.as_ref();
        if self.ops.is_empty() {
            let violation = crate::run_watched(&self.options, &self.cast, trace, watchers).0.err();
            let same = violation.as_ref() == before;
            return Replayed { violation, same, to_the_bit: digest_of(&self.options, &self.cast) == self.digest };
        }
        let ended = self.perform(trace, watchers);
        let seed = self.options.seed;
        let violation =
            ended.broken.map(|Broken(invariant, what)| Violation { invariant, seed, at: ended.at, what });
        let same = violation.as_ref().map(|violation| violation.invariant)
            == before.map(|violation| violation.invariant);
        Replayed { violation, same, to_the_bit: ended.digest == self.digest }
    }

    fn perform(&self, trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Ended {
        perform(&self.setup, &self.cast, &self.ops, trace, watchers)
    }

    /// Who knows the machine that this was about.
    #[must_use]
    pub(crate) fn with_cast(self, cast: &Cast) -> Self {
        Self { cast: cast.clone(), ..self }
    }

    fn header_parts(&self) -> (Options, Setup, Option<Violation>, u64) {
        (self.options.clone(), self.setup.clone(), self.violation.clone(), self.digest)
    }

    fn header(&self) -> Header {
        Header {
            format: file::FORMAT.to_owned(),
            version: file::VERSION,
            options: self.options.clone(),
            violation: self.violation.as_ref().map(file::Broke::of),
            digest: hex(self.digest),
            setup: self.setup.clone(),
            operations: self.ops.len(),
        }
    }
}

fn perform(setup: &Setup, cast: &Cast, ops: &[Timed], trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Ended {
    let mut ended = Ended { broken: None, at: 0, performed: 0, digest: 0 };
    let Some(service) = cast.service(&setup.service) else {
        ended.broken = Some(Broken("unknown", format!("nobody knows the workload {:?} here", setup.service)));
        return ended;
    };
    let mut lab = Lab::new(setup.clone(), service, trace, watchers);
    lab.keep_mail();
    for Timed(at, op) in ops {
        let verdict = catch_unwind(AssertUnwindSafe(|| lab.perform(*at, op.clone())));
        ended.at = *at;
        ended.performed += 1;
        ended.broken = match verdict {
            Ok(Ok(())) => continue,
            Ok(Err(broken)) => Some(broken),
            Err(payload) => Some(Broken("panic", words_of(&*payload))),
        };
        break;
    }
    ended.digest = lab.digest.value();
    ended
}

/// The digest of a whole run, up to where it breaks something.
fn digest_of(options: &Options, cast: &Cast) -> u64 {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(options, cast, Trace::Off, Vec::new());
        let _verdict = catch_unwind(AssertUnwindSafe(|| world.go()));
        world.lab.digest.value()
    }));
    run.unwrap_or_default()
}
