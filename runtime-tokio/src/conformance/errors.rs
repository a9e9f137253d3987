//! Disks that fail: at every I/O, once or for good, or because they are full.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use quorate_core::{GroupId, HardState, Run as Entries, Term};

use super::{
    Disk, Fault, Harness, Left, Rng,
    crashes::{Again, Crashed, Extra, on_two_threads},
    erased::Trouble,
    harness::Maker,
    model::{Model, Spec},
    plan::{Lane, Op, Plan},
    run::{Run, Stop},
};

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// Runs of a workload in which something was made to fail.
    pub runs: u64,
    /// Those in which the store has told of it. In the others it could do without what has failed.
    pub told: u64,
    /// Those that went on afterwards: what has failed was the staging of a snapshot, and no sync.
    pub went_on: u64,
}

impl Faults {
    pub(super) const fn add(mut self, other: Self) -> Self {
        self.runs += other.runs;
        self.told += other.told;
        self.went_on += other.went_on;
        self
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, told, went_on } = self;
        write!(f, "{runs} runs with a fault, {told} of them told, {went_on} went on afterwards")
    }
}

/// After an I/O error nothing is acknowledged, and nothing acknowledged is lost.
///
/// Each I/O of a workload fails, in a run of its own: once, or with all that follow. Either way the store says so, and does not
/// say that it is damaged; then it refuses every further commit and recovery, for nobody knows what is on the disk after
/// a sync that has failed. Only if what has failed was the staging of a snapshot, and was no sync, may it go on; if it does,
/// the snapshot can be staged again. What a crash leaves afterwards is opened and compared, as in
/// [`crash_points`](super::crash_points).
///
/// # Panics
/// If not: with the seed, the I/O that has failed, what was acknowledged and what was found.
pub fn io_errors<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, commits: usize) -> Faults {
    on_two_threads(seeds, Faults::add, |seed| each_fails(harness, &Plan::new(seed, commits)))
}

/// The same, where groups come and go, as in [`group_crash_points`](super::group_crash_points).
///
/// # Panics
/// If not: as [`io_errors`].
pub fn group_io_errors<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, commits: usize) -> Faults {
    on_two_threads(seeds, Faults::add, |seed| each_fails(harness, &Plan::of_groups(seed, commits)))
}

fn each_fails(maker: &dyn Maker, plan: &Plan) -> Faults {
    let mut faults = Faults::default();
    for at in 0..count(maker, plan) {
        for for_good in [false, true] {
            let fault = Fault { at, for_good, kind: io::ErrorKind::Other };
            faults = faults.add(Failing { maker, plan, limit: Limit::Fault(fault) }.run());
        }
    }
    faults
}

/// When the disk is full, nothing is acknowledged that is not there; and once there is space again, the store that is opened
/// then works.
///
/// The disk of a workload fills up before each I/O that needs space, in a run of its own, and at many sizes, so that writes are cut
/// short. As after other errors, nothing is acknowledged from then on. When there is space again, the store is closed and
/// opened, holds all that it had acknowledged, and takes more.
///
/// # Panics
/// If not: as [`io_errors`].
pub fn full_disk<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, commits: usize) -> Faults {
    on_two_threads(seeds, Faults::add, |seed| {
        let plan = Plan::new(seed, commits);
        let mut faults = Faults::default();
        let mut run = |limit| faults = faults.add(Failing { maker: harness, plan: &plan, limit }.run());
        for at in 0..count(harness, &plan) {
            run(Limit::Fault(Fault { at, for_good: true, kind: io::ErrorKind::StorageFull }));
        }
        let most = most_used(harness, &plan);
        for part in 0..40 {
            run(Limit::Room(most * part / 40));
        }
        faults
    })
}

/// How many I/Os a workload takes when nothing fails.
fn count(maker: &dyn Maker, plan: &Plan) -> u64 {
    let disk = Disk::new();
    clean(maker, plan, &disk);
    disk.count()
}

fn most_used(maker: &dyn Maker, plan: &Plan) -> u64 {
    let disk = Disk::new();
    clean(maker, plan, &disk);
    disk.used()
}

fn clean(maker: &dyn Maker, plan: &Plan, disk: &Disk) {
    let seed = plan.seed;
    let mut run = Run::on_disk(maker, plan, disk)
        .unwrap_or_else(|error| panic!("seed {seed}: a store can't be made on an empty disk: {error}"));
    if let Err((step, stop)) = run.all(plan) {
        panic!("seed {seed}, {}, without any fault: {stop}", plan.tell(step));
    }
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Fault(Fault),
    Room(u64),
}

/// One run of a workload on a disk that fails.
struct Failing<'a> {
    maker: &'a dyn Maker,
    plan: &'a Plan,
    limit: Limit,
}

impl Failing<'_> {
    fn is_full(&self) -> bool {
        !matches!(self.limit, Limit::Fault(Fault { kind: io::ErrorKind::Other, .. }))
    }

    fn run(&self) -> Faults {
        let disk = Disk::new();
        self.try_run(&disk).unwrap_or_else(|why| {
            let failed = disk.failed().map_or_else(
                || "no I/O".to_owned(),
                |it| format!("I/O {} ({:?} {})", it.at, it.kind, it.name),
            );
            panic!("seed {}, {failed} failed, with {:?}:\n{why}", self.plan.seed, self.limit)
        })
    }

    fn try_run(&self, disk: &Disk) -> Result<Faults, String> {
        disk.record();
        match self.limit {
            Limit::Fault(fault) => disk.set_fault(Some(fault)),
            Limit::Room(bytes) => disk.set_room(Some(bytes)),
        }
        let plan = self.plan;
        let mut rng = Rng::new(plan.seed ^ disk.count());
        let mut faults = Faults { runs: 1, ..Faults::default() };
        let mut crashed = Crashed {
            maker: self.maker,
            plan,
            incarnations: &[],
            acknowledged: None,
            extra: BTreeMap::new(),
        };
        let mut run = match Run::on_disk(self.maker, plan, disk) {
            Ok(run) => run,
            Err(error) => {
                faults.told = 1;
                is_io(&error)?;
                return self.afterwards(disk, &mut crashed, &mut rng).map(|()| faults);
            }
        };
        let mut incarnations = Vec::new();
        crashed.acknowledged = match run.all(plan) {
            // It could do without what has failed.
            Ok(()) => Some(plan.steps.len()),
            Err((step, Stop::Wrong(why))) => return Err(format!("  {}: {why}", plan.tell(step))),
            Err((step, Stop::Trouble(error))) => {
                faults.told = 1;
                is_io(&error).map_err(|why| format!("  {}: {why}", plan.tell(step)))?;
                let went_on = self.after_error(&mut run, disk, step, &mut crashed.extra);
                faults.went_on = u64::from(went_on.map_err(|why| format!("  {}: {why}", plan.tell(step)))?);
                Some(step)
            }
        };
        incarnations.append(&mut run.incarnations);
        if !self.is_full() {
            disk.freeze();
        }
        drop(run);
        crashed.incarnations = &incarnations;
        self.afterwards(disk, &mut crashed, &mut rng).map(|()| faults)
    }

    /// The store has said that something failed. It refuses all that follows, or goes on as it may.
    fn after_error(
        &self,
        run: &mut Run<'_>,
        disk: &Disk,
        step: usize,
        extra: &mut BTreeMap<GroupId, Vec<Extra>>,
    ) -> Result<bool, String> {
        let op = &self.plan.steps[step].op;
        let lane = match op {
            Op::Begin(group, lane, _)
            | Op::Stage(group, lane, _)
            | Op::Sync(group, lane)
            | Op::Publish(group, lane)
            | Op::Drop(group, lane) => Some((*group, *lane)),
            Op::Create(_)
            | Op::Remove(_)
            | Op::Recover(_)
            | Op::RecoverMany(_)
            | Op::Commit(_)
            | Op::Settle => None,
            // There is no store any more.
            Op::Reopen => return Ok(false),
        };
        let synced = disk.failed().is_some_and(|failed| failed.kind.is_sync());
        let may_go_on = lane.filter(|_| !synced);
        let mut latched = may_go_on.is_none();
        if let Some((group, lane)) = may_go_on {
            if run.can_write(group, lane) {
                return Err("the writer has failed, but can stage something after that".to_owned());
            }
            run.drop_writers();
        }
        let mut went_on = false;
        for _ in 0..3 {
            for group in &self.plan.here(step) {
                let spec = one_more(&self.now(*group, step, extra), *group);
                let results = [run.append(&spec), run.recover_again(*group)];
                if results[0].is_ok() && !latched {
                    extra.entry(*group).or_default().push(Extra::Write(spec));
                    went_on = true;
                }
                let (committed, recovered) = (results[0].is_ok(), results[1].is_ok());
                if latched && (committed || recovered) {
                    let what = if committed { "a commit" } else { "a recovery" };
                    return Err(format!(
                        "an error was told, and after it {what} of group {group} succeeds: the store must be latched"
                    ));
                }
                latched |= !committed;
            }
        }
        if let (Some((group, lane)), true) = (may_go_on, !latched && self.is_once()) {
            self.stage_again(run, group, lane, step, extra)?;
        }
        Ok(went_on)
    }

    fn is_once(&self) -> bool {
        matches!(self.limit, Limit::Fault(Fault { for_good: false, .. }))
    }

    /// A group as it is now, as far as appending goes.
    fn now(&self, group: GroupId, step: usize, extra: &BTreeMap<GroupId, Vec<Extra>>) -> Model {
        let mut model = Model::clone(&self.plan.after(group, step));
        extra.get(&group).into_iter().flatten().for_each(|extra| extra.apply(&mut model));
        model
    }

    /// The snapshot that could not be staged can be, now that nothing fails.
    fn stage_again(
        &self,
        run: &mut Run<'_>,
        group: GroupId,
        lane: Lane,
        step: usize,
        extra: &mut BTreeMap<GroupId, Vec<Extra>>,
    ) -> Result<(), String> {
        let begun = self.plan.steps[..=step].iter().rev().find_map(|step| match &step.op {
            Op::Begin(of, by, shot) if (*of, *by) == (group, lane) => Some(shot),
            _ => None,
        });
        let shot = begun.expect("it has begun before it goes on");
        let failed = |error: Trouble| format!("the same snapshot can't be staged again after that: {error}");
        if run.lists(group, shot).map_err(failed)? {
            return Ok(());
        }
        run.stage_all(group, lane, shot).map_err(failed)?;
        extra.entry(group).or_default().push(Extra::Published(Arc::clone(shot)));
        Ok(())
    }

    /// What is there when it is all over.
    fn afterwards(&self, disk: &Disk, crashed: &mut Crashed<'_>, rng: &mut Rng) -> Result<(), String> {
        if self.is_full() {
            return self.with_space(disk, crashed, rng);
        }
        disk.freeze();
        let trace = disk.take_trace();
        let mut replay = trace.replay();
        while replay.step(rng).is_some() {}
        for left in [Left::Nothing, Left::Some(50), Left::All] {
            let image = replay.image(left, rng);
            crashed
                .check(&image, Again::No, rng)
                .map_err(|why| format!("and a crash, which leaves {left:?}:\n{why}"))?;
        }
        Ok(())
    }

    /// There is space again: the store is opened, and works.
    fn with_space(&self, disk: &Disk, crashed: &mut Crashed<'_>, rng: &mut Rng) -> Result<(), String> {
        disk.set_fault(None);
        disk.set_room(None);
        crashed
            .check(&disk.copy(), Again::No, rng)
            .map_err(|why| format!("and there is space again:\n{why}"))?;
        let again = |what: &str, error: Trouble| format!("there is space again, but {what}: {error}");
        let mut store = match self.maker.reopen(disk) {
            Err(error) if crashed.acknowledged.is_none() && error.absent => {
                self.maker.make(disk, &self.plan.groups).map_err(|e| again("a bootstrap fails", e))?
            }
            other => other.map_err(|e| again("the store can't be opened", e))?,
        };
        for group in &store.groups().map_err(|e| again("the groups can't be listed", e))? {
            let recovered = store.recover(*group).map_err(|e| again("a recovery fails", e))?;
            let term = recovered.hard_state.term.max(Term(1));
            let mut spec = Spec::new(*group);
            spec.hard_state = Some(HardState { term, vote: recovered.hard_state.vote });
            spec.entries.push(Entries::commands(term, recovered.last.next(), &[b"space"]).expect("one"));
            store.commit(&[spec.mint(recovered.incarnation, 1)]).map_err(|e| again("a commit fails", e))?;
            crashed.extra.entry(*group).or_default().push(Extra::Write(spec));
        }
        disk.freeze();
        drop(store);
        let trace = disk.take_trace();
        let mut replay = trace.replay();
        while replay.step(rng).is_some() {}
        let image = replay.image(Left::Nothing, rng);
        crashed
            .check(&image, Again::No, rng)
            .map_err(|why| format!("there was space again, then a crash:\n{why}"))
    }
}

/// An error of an I/O is no damage, and a store that could not be opened is not absent.
fn is_io(error: &Trouble) -> Result<(), String> {
    match (error.damage, error.absent) {
        (false, false) => Ok(()),
        (true, _) => Err(format!("an I/O error is told as damage: {error}")),
        (_, true) => Err(format!("an I/O error is told as a store that isn't there: {error}")),
    }
}

/// A write that appends an entry.
fn one_more(model: &Model, group: GroupId) -> Spec {
    let mut spec = Spec::new(group);
    let term = model.hard_state.term.max(Term(1));
    spec.hard_state = Some(HardState { term, vote: model.hard_state.vote });
    spec.entries.push(Entries::commands(term, model.last().index.next(), &[b"one more"]).expect("one"));
    spec
}
