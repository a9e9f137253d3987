//! Crashes: at every I/O, with all kinds of what they leave.

use std::{
    collections::BTreeMap,
    fmt,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use quorate_core::{GroupId, Incarnation};

use super::{
    Disk, Event, Harness, Left, Rng,
    erased::{AnyStore, Trouble},
    harness::Maker,
    model::{Found, Model, Partial, Presence, Shot, Spec, observe, read_snapshots, voters},
    plan::{Lane, Op, Plan, Step},
    run::{Run, check_resumed},
};

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Images of a crash, each opened and compared.
    pub points: u64,
    /// How many of them crashed once more while they were opened and recovered.
    pub second_crashes: u64,
    /// I/Os of the workloads, between which the crashes were.
    pub ios: u64,
    /// Calls of the stores in those workloads.
    pub steps: u64,
}

impl Report {
    pub(super) const fn add(mut self, other: Self) -> Self {
        self.points += other.points;
        self.second_crashes += other.second_crashes;
        self.ios += other.ios;
        self.steps += other.steps;
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { points, second_crashes, ios, steps } = self;
        write!(
            f,
            "{points} crash points and {second_crashes} second crashes among {ios} I/Os of {steps} calls"
        )
    }
}

/// Whatever a crash leaves, at whichever I/O: what was acknowledged is there, what was under way is there whole or not at
/// all, and nothing else is.
///
/// Each seed is a workload of so many commits, over three groups: appends, truncations, votes, compactions, installations,
/// snapshots taken and received, cut short and resumed, recoveries and reopenings. It is crashed after each I/O and after
/// each call, with each kind of [`Left`]: nothing of what was not synced, all of it, any sectors of it in any order, only the
/// newest of it. Each image is opened, and all that is in it read and compared. Some of them crash again while they are opened:
/// then what a recovery had returned is there still. So it is if only the process was killed at first, and nothing that it had
/// left unsynced is durable yet when the power fails.
///
/// # Panics
/// If not: with the seed, the point, what was acknowledged and what was found.
pub fn crash_points<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, commits: usize) -> Report {
    on_two_threads(seeds, Report::add, |seed| crash_plan(harness, &Plan::new(seed, commits)))
}

/// The same, with little but snapshots: interrupted after each I/O they are listed whole or not at all, with all their bytes, and
/// what was synced of a transfer is there to be resumed.
///
/// # Panics
/// If not: as [`crash_points`].
pub fn snapshot_crash_points<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, commits: usize) -> Report {
    on_two_threads(seeds, Report::add, |seed| crash_plan(harness, &Plan::of_snapshots(seed, commits)))
}

/// The same, with groups that are created, several at once, recovered many at once, and removed, while snapshots of them are staged as
/// well: a group is listed and here as a whole, or not at all; one that was removed can't be created any more; and of the
/// writes of several groups in one commit one is there only if those before it are.
///
/// # Panics
/// If not: as [`crash_points`].
pub fn group_crash_points<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, commits: usize) -> Report {
    on_two_threads(seeds, Report::add, |seed| crash_plan(harness, &Plan::of_groups(seed, commits)))
}

/// Runs seeds on two threads, and adds up what they report.
pub(super) fn on_two_threads<R: Default + Send>(
    seeds: std::ops::Range<u64>,
    add: fn(R, R) -> R,
    run: impl Fn(u64) -> R + Sync,
) -> R {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut report = R::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return report;
            }
            report = add(report, run(seed));
        }
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let report = work();
        add(report, other.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Something that was acknowledged after the last step of a plan.
pub(super) enum Extra {
    Write(Spec),
    Published(Arc<Shot>),
}

impl Extra {
    pub(super) fn apply(&self, model: &mut Model) {
        match self {
            Self::Write(spec) => model.apply(spec),
            Self::Published(shot) => model.publish(shot.clone()),
        }
    }
}

/// What is known of a workload when it crashes.
pub(super) struct Crashed<'a> {
    pub(super) maker: &'a dyn Maker,
    pub(super) plan: &'a Plan,
    /// The newest incarnation of each group after each step.
    pub(super) incarnations: &'a [BTreeMap<GroupId, Incarnation>],
    /// So many steps have returned; none at all before the bootstrap has.
    pub(super) acknowledged: Option<usize>,
    /// What was acknowledged besides, whether the step under way was done or not.
    pub(super) extra: BTreeMap<GroupId, Vec<Extra>>,
}

fn crash_plan(maker: &dyn Maker, plan: &Plan) -> Report {
    let seed = plan.seed;
    let disk = Disk::new();
    disk.record();
    let mut run = Run::on_disk(maker, plan, &disk)
        .unwrap_or_else(|error| panic!("seed {seed}: a store can't be made on an empty disk: {error}"));
    if let Err((step, stop)) = run.all(plan) {
        panic!("seed {seed}, {}, without any fault: {stop}", plan.tell(step));
    }
    disk.freeze();
    let incarnations = std::mem::take(&mut run.incarnations);
    drop(run);
    let trace = disk.take_trace();
    let mut rng = Rng::new(!seed);
    let mut crashed =
        Crashed { maker, plan, incarnations: &incarnations, acknowledged: None, extra: BTreeMap::new() };
    let mut report = Report { steps: plan.steps.len() as u64, ..Report::default() };
    let mut replay = trace.replay();
    while let Some(event) = replay.step(&mut rng) {
        match event {
            Event::Mark(step) => crashed.acknowledged = Some(step as usize),
            Event::Io(_) => report.ios += 1,
        }
        let kinds = [
            Left::Nothing,
            Left::All,
            Left::Newest(1 + rng.below(3)),
            Left::Some([10, 50, 90][rng.below(3) as usize]),
        ];
        // Without anything on its way they are all the same.
        let kinds = if replay.has_pending() { &kinds[..] } else { &kinds[..1] };
        for left in kinds {
            // Names are what a process that starts again most easily takes to be durable.
            let again =
                rng.chance(if matches!(event, Event::Io(kind) if kind.is_of_names()) { 60 } else { 10 });
            // A process that is killed leaves all, but not as something durable.
            let killed = again && *left == Left::All;
            let image = if killed { replay.killed() } else { replay.image(*left, &mut rng) };
            let again = match (again, killed) {
                (false, _) => Again::No,
                (true, false) => Again::AllDurable,
                (true, true) => Again::Killed(replay.done()),
            };
            if let Err(why) = crashed.check(&image, again, &mut rng) {
                let after = replay.done();
                panic!(
                    "seed {seed}, crash after {event:?} ({after} of {}), which leaves {left:?}:\n{why}",
                    trace.len()
                );
            }
            report.points += 1;
            report.second_crashes += u64::from(again != Again::No);
        }
    }
    report
}

/// Is there a second crash, while what the first one has left is opened?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    No,
    /// Of the machine, as the first one was.
    AllDurable,
    /// Of the machine, and the first one was of the process alone, after so many steps of the trace.
    Killed(usize),
}

/// What a recovery has returned of a group.
#[derive(Clone, Debug)]
struct Seen {
    incarnation: Incarnation,
    /// Which of the states it may be in.
    states: Vec<usize>,
}

type AllSeen = BTreeMap<GroupId, Seen>;

impl Crashed<'_> {
    /// Opens what is left, and compares all of it; and crashes it again on the way, if asked to.
    pub(super) fn check(&self, image: &Disk, again: Again, rng: &mut Rng) -> Result<(), String> {
        let before = match again {
            Again::No => return self.check_once(image, rng, &AllSeen::new(), true).map(drop),
            Again::AllDurable => {
                image.record();
                0
            }
            Again::Killed(before) => before,
        };
        let seen = self.check_once(image, rng, &AllSeen::new(), false)?;
        let trace = image.take_trace();
        let stop = before as u64 + rng.below((trace.len() - before) as u64 + 1);
        let mut replay = trace.replay();
        let mut returned = 0;
        for done in 0..stop {
            if let Some(Event::Mark(mark)) = replay.step(rng)
                && done >= before as u64
            {
                returned = mark;
            }
        }
        // What was recovered by then is durable, its new incarnation too.
        let recovered = self.plan.all.iter().take(returned as usize).copied();
        let seen = recovered.filter_map(|group| Some((group, seen.get(&group)?.clone()))).collect();
        let left = if rng.chance(50) { Left::Nothing } else { Left::Some(50) };
        self.check_once(&replay.image(left, rng), rng, &seen, true).map(drop).map_err(|why| {
            let first = if before > 0 { "only the process was killed at first, " } else { "" };
            format!(
                "{first}and a second crash, after step {} of {} of the recovery ({left:?}):\n{why}",
                stop - before as u64,
                trace.len() - before
            )
        })
    }

    fn check_once(
        &self,
        image: &Disk,
        rng: &mut Rng,
        seen: &AllSeen,
        resume: bool,
    ) -> Result<AllSeen, String> {
        let tell = |damage: bool, why: &str| self.tell(damage, why);
        let mut store = match self.maker.reopen(image) {
            Ok(store) => store,
            Err(error) if self.acknowledged.is_none() && error.absent => {
                // Nothing is in the way of another bootstrap.
                self.maker.make(image, &self.plan.groups).map_err(|error| {
                    tell(
                        error.damage,
                        &format!("the bootstrap was cut short, and the next one fails: {error}"),
                    )
                })?
            }
            Err(error) => return Err(tell(error.damage, &format!("it can't be opened: {error}"))),
        };
        let listed = store.groups().map_err(|error| tell(error.damage, &error.to_string()))?;
        if !listed.is_sorted_by(|one, next| one < next) || listed.iter().any(|id| !self.plan.all.contains(id))
        {
            return Err(tell(false, &format!("the groups that are listed are {listed:?}")));
        }
        let mut now = AllSeen::new();
        let mut absent = Vec::new();
        for (n, group) in self.plan.all.iter().enumerate() {
            let of_group = |why: &str| tell(false, &format!("group {group}: {why}"));
            let before = seen.get(group);
            let (incarnation, mut fitting) = if listed.contains(group) {
                let found = observe(&mut *store, *group)
                    .map_err(|error| tell(error.damage, &format!("group {group}: {error}")))?;
                let incarnation = found.recovered.incarnation;
                let had = self.newest(*group).max(before.map(|seen| seen.incarnation).unwrap_or_default());
                if incarnation <= had {
                    return Err(of_group(&format!("incarnation {incarnation}, but it has had {had}")));
                }
                (incarnation, self.fitting(*group, &found).map_err(|why| of_group(&why))?)
            } else {
                (Incarnation(0), self.missing(*group).map_err(|why| of_group(&why))?)
            };
            image.mark(n as u64 + 1);
            if let Some(before) = before {
                fitting.retain(|(nth, _)| before.states.contains(nth));
                if fitting.is_empty() {
                    return Err(of_group("what the recovery before had returned is not there any more"));
                }
            }
            let states = fitting.iter().map(|(nth, _)| *nth).collect();
            now.insert(*group, Seen { incarnation, states });
            let fitting: Vec<Arc<Model>> = fitting.into_iter().map(|(_, model)| model).collect();
            if !listed.contains(group) {
                absent.push((*group, fitting[0].presence == Presence::Removed));
            } else if resume && rng.chance(30) {
                self.resume(&*store, *group, &fitting, rng).map_err(|why| of_group(&why))?;
            }
        }
        self.in_order(&now).map_err(|why| tell(false, &why))?;
        for (group, removed) in absent.into_iter().filter(|_| resume) {
            match (store.create(group, &voters(1)), removed) {
                (Ok(()), true) => {
                    return Err(tell(false, &format!("group {group} was removed, and can be created again")));
                }
                (Err(error), false) => {
                    let why = format!("group {group} was never created, and can't be: {error}");
                    return Err(tell(error.damage, &why));
                }
                _ => {}
            }
        }
        // The process dies: what it would do when it closes is not done.
        image.freeze();
        Ok(now)
    }

    /// The newest incarnation that a group has had.
    fn newest(&self, group: GroupId) -> Incarnation {
        let of = self.acknowledged.and_then(|steps| self.incarnations.get(steps)?.get(&group));
        of.copied().unwrap_or_default()
    }

    /// The states that a group may be in.
    fn may_be(&self, group: GroupId) -> Vec<Arc<Model>> {
        let mut may_be = match self.acknowledged {
            Some(steps) => self.plan.during(group, steps),
            None => vec![self.plan.after(group, 0)],
        };
        for extra in self.extra.get(&group).into_iter().flatten() {
            may_be.iter_mut().for_each(|model| extra.apply(Arc::make_mut(model)));
        }
        may_be
    }

    /// Those in which it is not there, for it is not listed.
    fn missing(&self, group: GroupId) -> Result<Vec<(usize, Arc<Model>)>, String> {
        let mut may_be: Vec<_> = self.may_be(group).into_iter().enumerate().collect();
        may_be.retain(|(_, model)| !model.is_here());
        if may_be.is_empty() { Err("it is not listed".to_owned()) } else { Ok(may_be) }
    }

    /// Of the writes of a commit that was under way the first ones are there, in whichever groups.
    fn in_order(&self, now: &AllSeen) -> Result<(), String> {
        let under_way = self.acknowledged.and_then(|steps| self.plan.steps.get(steps));
        let Some(Step { op: Op::Commit(specs), .. }) = under_way else { return Ok(()) };
        let is_first = |done: &[Spec]| {
            let count = |group| done.iter().filter(|spec| spec.group == group).count();
            specs.iter().all(|spec| now[&spec.group].states.contains(&count(spec.group)))
        };
        if (0..=specs.len()).any(|done| is_first(&specs[..done])) {
            return Ok(());
        }
        let states: Vec<_> = now.iter().map(|(group, seen)| (group, &seen.states)).collect();
        Err(format!("of the commit's writes some are there, but not those before them: {states:?}"))
    }

    /// Which of the states that a group may be in it was found in, with their numbers.
    fn fitting(&self, group: GroupId, found: &Found) -> Result<Vec<(usize, Arc<Model>)>, String> {
        let may_be = self.may_be(group);
        let mut reasons = String::new();
        let count = may_be.len();
        let mut fitting = Vec::new();
        for (nth, model) in may_be.into_iter().enumerate() {
            let same = if model.is_here() { model.check(found) } else { Err("it is listed".to_owned()) };
            let Err(why) = same else {
                fitting.push((nth, model));
                continue;
            };
            let state = match nth {
                0 => "what was acknowledged".to_owned(),
                n if n + 1 == count => "that and the call that was under way".to_owned(),
                n => format!("that and {n} writes of the commit under way"),
            };
            reasons = format!("{reasons}\n    it isn't {state}: {why}");
        }
        if fitting.is_empty() { Err(reasons) } else { Ok(fitting) }
    }

    /// Goes on with a transfer that the crash has cut short.
    fn resume<'a>(
        &self,
        store: &(dyn AnyStore<'a> + 'a),
        group: GroupId,
        fitting: &[Arc<Model>],
        rng: &mut Rng,
    ) -> Result<(), String> {
        let partials: Vec<&Arc<Model>> = fitting.iter().filter(|model| model.received.is_some()).collect();
        if partials.is_empty() {
            return Ok(());
        }
        let picked = partials[rng.below(partials.len() as u64) as usize];
        let Some(Partial { shot, .. }) = &picked.received else { return Ok(()) };
        let snapshots = store.snapshots();
        let failed = |what: &str, error: &Trouble| format!("resuming {}: {what}: {error}", shot.last());
        let mut writer = snapshots.receive(group, &shot.info).map_err(|e| failed("receive", &e))?;
        let staged = writer.staged();
        let may_be_lost = fitting.iter().any(|model| match &model.received {
            Some(other) => !Arc::ptr_eq(&other.shot, shot),
            None => true,
        });
        if staged > 0 || !may_be_lost {
            // Those that agree in all but this: any of them will do.
            let mut results =
                partials.iter().map(|model| check_resumed(model, Lane::Receive, staged, self.maker.slack()));
            let first = results.next().unwrap_or(Ok(()));
            if first.is_err() && !results.any(|result| result.is_ok()) {
                return first;
            }
        }
        let rest = shot.bytes.get(staged as usize..).unwrap_or_default();
        writer.write(rest).map_err(|e| failed("write", &e))?;
        let info = writer.publish().map_err(|e| failed(&format!("publish, resumed at byte {staged}"), &e))?;
        if info != shot.info {
            return Err(format!(
                "resumed at byte {staged}, published as {info:?} instead of {:?}",
                shot.info
            ));
        }
        let found = read_snapshots(store, group).map_err(|e| e.to_string())?;
        let mut model = Model::clone(picked);
        model.publish(shot.clone());
        model.check_snapshots(&found).map_err(|why| format!("resumed at byte {staged} and published: {why}"))
    }

    fn tell(&self, damage: bool, why: &str) -> String {
        let acknowledged = match self.acknowledged {
            None => "not even the bootstrap".to_owned(),
            Some(0) => "the bootstrap".to_owned(),
            Some(steps) => self.plan.tell(steps - 1),
        };
        let under_way = self.acknowledged.map_or_else(|| "the bootstrap".to_owned(), |at| self.plan.tell(at));
        let damage =
            if damage { "\n  the store says that it is damaged, but nothing was damaged" } else { "" };
        format!("  acknowledged last: {acknowledged}\n  under way: {under_way}{damage}\n  found: {why}")
    }
}
