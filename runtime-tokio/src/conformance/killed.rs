//! A process that is killed in the middle of its work.

use std::collections::BTreeMap;

use quorate_core::{GroupId, Incarnation};

use super::{
    Disk, Harness, Rng, Setup,
    crashes::{Again, Crashed},
    plan::{Op, Plan},
    run::Run,
};

/// What a process does until it is killed: the workload of a seed, with so many commits. After each call that has returned `tell` is
/// called with how many have, 0 when the store is there.
///
/// # Panics
/// If the store does what it must not.
pub fn work(setup: &dyn Setup, seed: u64, commits: usize, mut tell: impl FnMut(usize)) {
    let plan = Plan::new(seed, commits);
    let mut run = Run::in_place(setup, &plan);
    tell(0);
    for n in 0..plan.steps.len() {
        if let Err(stop) = run.step(&plan, n) {
            panic!("seed {seed}, {}, without any fault: {stop}", plan.tell(n));
        }
        tell(n + 1);
    }
}

/// What a process has left that did [`work`] and was killed: all of what it had told, and what was under way whole or not at all.
/// `told` is what it told last, if anything; `left` holds its files.
///
/// # Panics
/// If not.
pub fn check_killed<H: Harness>(harness: &H, left: &Disk, seed: u64, commits: usize, told: Option<usize>) {
    let plan = Plan::new(seed, commits);
    // Each recovery has issued a new one.
    let mut issued: BTreeMap<GroupId, Incarnation> = BTreeMap::new();
    let mut incarnations = vec![issued.clone()];
    for step in &plan.steps {
        let recovered = match &step.op {
            Op::Recover(group) => std::slice::from_ref(group),
            Op::RecoverMany(groups) => groups,
            _ => &[],
        };
        recovered.iter().for_each(|group| issued.entry(*group).or_default().0 += 1);
        incarnations.push(issued.clone());
    }
    let crashed = Crashed {
        maker: harness,
        plan: &plan,
        incarnations: &incarnations,
        acknowledged: told,
        extra: BTreeMap::new(),
    };
    if let Err(why) = crashed.check(left, Again::No, &mut Rng::new(seed)) {
        panic!("seed {seed}, killed after {told:?} calls of {}:\n{why}", plan.steps.len());
    }
}
