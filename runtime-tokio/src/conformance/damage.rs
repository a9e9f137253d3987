//! Disks that rot.

use super::{
    Disk, Harness, Rng,
    crashes::on_two_threads,
    erased::Trouble,
    harness::Maker,
    model::observe,
    plan::{Op, Plan},
    run::Run,
};

/// What became of bytes that were changed behind a store's back.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rot {
    /// Bytes that were changed, each alone.
    pub flips: u64,
    /// Those that the store has told of as damage.
    pub told: u64,
    /// Those that mattered to nothing.
    pub harmless: u64,
    /// Those after which the newest commit was gone, without a word.
    pub forgotten: u64,
}

impl Rot {
    const fn add(mut self, other: Self) -> Self {
        self.flips += other.flips;
        self.told += other.told;
        self.harmless += other.harmless;
        self.forgotten += other.forgotten;
        self
    }
}

/// What was acknowledged and is damaged is never taken for something else, nor for a write that was cut short.
///
/// One byte after the other, drawn from all that are on the disk after a workload, is changed, and the store opened: it holds all
/// that it should, or it says that it is damaged. Only of the newest commit alone can a store without a second place to look at think
/// that it was never finished; [`Rot::forgotten`] counts that, for those that promise more.
///
/// # Panics
/// If anything else is found: with the seed, the file and the byte.
pub fn notices_damage<H: Harness>(harness: &H, seeds: std::ops::Range<u64>, flips: u64) -> Rot {
    on_two_threads(seeds, Rot::add, |seed| rot(harness, seed, flips))
}

fn rot(maker: &dyn Maker, seed: u64, flips: u64) -> Rot {
    let plan = Plan::new(seed, 20);
    let newest = plan.steps.iter().rposition(|step| matches!(step.op, Op::Commit(_))).unwrap_or(0);
    // The newest thing done is a commit.
    let plan = plan.cut(newest + 1);
    let disk = Disk::new();
    let mut run = Run::on_disk(maker, &plan, &disk)
        .unwrap_or_else(|error| panic!("seed {seed}: a store can't be made on an empty disk: {error}"));
    if let Err((step, stop)) = run.all(&plan) {
        panic!("seed {seed}, {}, without any fault: {stop}", plan.tell(step));
    }
    let image = disk.copy();
    drop(run);
    let mut rng = Rng::new(seed ^ 0x0B17_F11B);
    let mut rot = Rot::default();
    let names = image.list().expect("a disk that nothing is wrong with");
    for _ in 0..flips {
        let rotten = image.copy();
        let name = &names[rng.below(names.len() as u64) as usize];
        let len = rotten.open(name).and_then(|file| file.len()).expect("it was listed");
        let (at, mask) = (rng.below(len), 1 << rng.below(8));
        rotten.flip(name, at, mask);
        let what = |found: &str| -> ! {
            panic!("seed {seed}, byte {at} of {len} of {name} changed by {mask:#04x}: {found}")
        };
        rot.flips += 1;
        match look(maker, &rotten, &plan, newest) {
            Ok(0) => rot.harmless += 1,
            Ok(_) => rot.forgotten += 1,
            Err(Some(error)) if error.damage => rot.told += 1,
            Err(Some(error)) => what(&format!("the store says, and not that it is damaged: {error}")),
            Err(None) => what("neither what was acknowledged is found, nor that without the newest commit"),
        }
    }
    rot
}

/// How many commits are missing, which may be one; or what the store says.
fn look(maker: &dyn Maker, disk: &Disk, plan: &Plan, newest: usize) -> Result<usize, Option<Trouble>> {
    let mut store = maker.reopen(disk).map_err(Some)?;
    let mut missing = 0..=1;
    for (group, _) in &plan.groups {
        let found = observe(&mut *store, *group).map_err(Some)?;
        let is = |steps| plan.after(*group, steps).check(&found).is_ok();
        let (all, without) = (is(newest + 1), is(newest));
        missing = if all { *missing.start() } else { 1 }..=if without { *missing.end() } else { 0 };
        if missing.is_empty() {
            return Err(None);
        }
    }
    Ok(*missing.start())
}
