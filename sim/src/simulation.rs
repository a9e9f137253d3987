//! A user's own state machine, in whole clusters, over many seeds.

use std::{fmt, ops::Range, path::Path, sync::Arc, time::Duration};

use quorate_core::Config;

use crate::{
    Faults, Options, Planned, Profile, Replayed, Schedule, Strike, Summary, Trace, Violation, Without,
    cast::Cast,
    picture::{MOST_EVENTS, run_pictured_with},
    run_watched,
    runner::run_seeds_with,
    workload::{Checker, Machines, Replicated, Service, Sessions, Workload, machines},
};

/// Whole clusters that run a state machine of yours, with clients of yours, under faults.
///
/// What is yours is the machine (anything that is [`StateMachine`](quorate_core::StateMachine) and [`Replicated`]), what clients ask
/// of it, and, if you like, who judges the answers. What comes with it: nodes that crash, disks and networks that fail, snapshots,
/// every invariant of Raft, replicas held against each other, and every answer against the log.
///
/// A machine with a bug, and a test that finds it:
///
/// ```
/// use bytes::Bytes;
/// use quorate_core::{Entry, StateMachine};
/// use quorate_sim::{Profile, Simulation, workload::{Op, Random, Replicated, State}};
///
/// /// Gives out tickets; each number once.
/// #[derive(Clone, Hash, Default)]
/// struct Tickets { next: u64, given_back: Vec<u64> }
///
/// impl StateMachine for Tickets {
///     type Command = Bytes;
///     type Reply = Bytes;
///     fn apply(&mut self, entry: &Entry) -> Bytes {
///         if entry.payload.starts_with(b"back") {
///             self.given_back.push(self.next / 2);
///             return Bytes::new();
///         }
///         let ticket = self.given_back.pop().unwrap_or_else(|| { self.next += 1; self.next });
///         Bytes::copy_from_slice(&ticket.to_le_bytes())
///     }
/// }
///
/// impl Replicated for Tickets {
///     fn snapshot(&self) -> State {
///         // The bug: those that were given back are not in it.
///         State::clone_of(&Tickets { next: self.next, given_back: Vec::new() })
///     }
///     fn restored(state: &State) -> Result<Self, String> { state.to_value() }
///     fn digest(&self) -> u64 { self.next ^ (self.given_back.len() as u64) << 32 }
/// }
///
/// let found = Simulation::builder()
///     .machine(Tickets::default)
///     .workload(|_client: usize, random: &mut Random| {
///         Op::Write(if random.chance(0.4) { "back".into() } else { "take".into() })
///     })
///     .profile(Profile::Disk)
///     .seeds(0..100)
///     .run();
/// let failure = found.unwrap_err();
/// assert_eq!(failure.violation().invariant, "P1"); // A snapshot's state is not the one at its index.
/// let shrunk = failure.schedule().unwrap().shrink(2000, &mut |_| {});
/// assert!(shrunk.len() < 150, "{} steps", shrunk.len());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Simulation;

impl Simulation {
    /// 100 seeds of [`Profile::Everything`], with a built-in machine until you say otherwise.
    pub fn builder() -> Builder {
        Builder {
            options: Options::new(0),
            seeds: 0..100,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            machines: None,
            workload: None,
            cast: Cast::default(),
        }
    }
}

/// What is to be run.
#[derive(Clone)]
#[must_use = "nothing runs before `run` is called"]
pub struct Builder {
    options: Options,
    seeds: Range<u64>,
    jobs: usize,
    /// Alone, and with sessions.
    machines: Option<(Machines, Machines)>,
    workload: Option<Arc<dyn Workload>>,
    cast: Cast,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// What each node runs: `new` makes that of a node which has applied nothing.
    pub fn machine<M: Replicated>(mut self, new: impl Fn() -> M + Clone + Send + Sync + 'static) -> Self {
        let plain = machines(new.clone());
        self.machines = Some((plain, machines(move || Sessions::new(new(), Service::SESSIONS))));
        self
    }

    /// What clients ask for. A closure will do.
    pub fn workload(mut self, workload: impl Workload + 'static) -> Self {
        self.workload = Some(Arc::new(workload));
        self
    }

    /// Who judges what clients hear; `new` makes one for each run. A closure over an answer will do.
    pub fn checker<C: Checker + 'static>(mut self, new: impl Fn() -> C + Send + Sync + 'static) -> Self {
        self.cast.checker = Some(Arc::new(move || Box::new(new())));
        self
    }

    /// Clients send again what they were not answered, and sessions around the machine see to it that it is done once (dissertation
    /// 6.3); or they never do. Drawn from the seed if not said.
    pub fn sessions(mut self, sessions: bool) -> Self {
        self.cast.sessions = Some(sessions);
        self
    }

    /// Which faults may be drawn.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.options.profile = profile;
        self
    }

    /// What is left out of whatever is drawn.
    pub fn without(mut self, kinds: impl IntoIterator<Item = Without>) -> Self {
        self.options.without.extend(kinds);
        self
    }

    /// How strong faults are, in place of what is drawn.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.options.faults = faults;
        self
    }

    /// What happens in every run after so much virtual time, whatever else does.
    pub fn at(mut self, time: Duration, strike: Strike) -> Self {
        let at = time.as_micros() as u64;
        self.options.planned.push(Planned { at, strike });
        self
    }

    /// The nodes' configuration, but for id, seed and priority, in place of the one that is drawn.
    pub fn config(mut self, config: Config) -> Self {
        self.options.config = Some(config);
        self
    }

    /// How many nodes there are at the beginning, 1 to 9.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.options.nodes = Some(nodes.clamp(1, 9));
        self
    }

    /// Virtual time with faults in each run.
    pub fn duration(mut self, duration: Duration) -> Self {
        self.options.duration = Some(duration.as_micros() as u64);
        self
    }

    /// Which seeds.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Threads; one for each core if not said.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// Runs every seed, until one of them violates something.
    ///
    /// # Errors
    /// The violation, with all that is needed to see it again; boxed, for it is rare and big.
    pub fn run(self) -> Result<Summary, Box<Failure>> {
        let (options, cast) = (self.options.clone(), self.cast());
        let summary = run_seeds_with(self.seeds.clone(), &options, &cast, self.jobs, || true, |_| {});
        match summary.violation.clone() {
            None => Ok(summary),
            Some(violation) => {
                let options = Options { seed: violation.seed, ..options };
                Err(Box::new(Failure { violation, options, cast }))
            }
        }
    }

    /// Does again what was written down.
    #[must_use]
    pub fn replay(&self, schedule: &Schedule) -> Replayed {
        schedule.clone().with_cast(&self.cast()).replay(Trace::Off)
    }

    fn cast(&self) -> Cast {
        let mut cast = self.cast.clone();
        if self.machines.is_some() || self.workload.is_some() {
            let counters = Service::default();
            let (plain, with_sessions) =
                self.machines.clone().unwrap_or((counters.plain, counters.with_sessions));
            let workload = self.workload.clone().unwrap_or(counters.workload);
            cast.service = Some(Service { name: "user", workload, plain, with_sessions, search: None });
        }
        cast
    }
}

/// A seed that violated something.
pub struct Failure {
    violation: Violation,
    options: Options,
    cast: Cast,
}

impl Failure {
    /// What was violated, in which seed, and when.
    #[must_use]
    pub const fn violation(&self) -> &Violation {
        &self.violation
    }

    /// The seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.violation.seed
    }

    /// Everything that happens in the run, line by line.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        match run_watched(&self.options, &self.cast, Trace::Lines(Vec::new()), Vec::new()).1 {
            Trace::Lines(lines) => lines,
            Trace::Off | Trace::Print => Vec::new(),
        }
    }

    /// What was done, to be written down, replayed and made shorter. `None` if the run does not fail again: the machine or the
    /// workload draws on something else than the seed, then.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        Schedule::record_with(&self.options, &self.cast)
    }

    /// A picture of the run, as an HTML page that needs nothing else.
    #[must_use]
    pub fn page(&self) -> String {
        run_pictured_with(&self.options, &self.cast, MOST_EVENTS).1
    }

    /// Writes all there is to see into a folder: what was done (`seed-N.jsonl`), what happened (`seed-N.trace`), and a picture
    /// (`seed-N.html`).
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let path = |kind: &str| folder.join(format!("seed-{}.{kind}", self.seed()));
        if let Some(schedule) = self.schedule() {
            schedule.write(std::io::BufWriter::new(std::fs::File::create(path("jsonl"))?))?;
        }
        std::fs::write(path("html"), self.page())?;
        std::fs::write(path("trace"), self.trace().join("\n"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.violation, f)
    }
}

/// As for people: it is what a test that unwraps it shows.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}
