//! Making a schedule shorter, while it breaks the same: fewer kinds of faults, fewer nodes, fewer steps (delta debugging: Zeller and
//! Hildebrandt, "Simplifying and isolating failure-inducing input").

use quorate_core::{Config, Membership, NodeId};

use super::{Ended, Schedule, perform};
use crate::{
    Options, Trace, Violation, Without,
    cast::Cast,
    lab::Setup,
    op::{Op, Timed, What},
    run_with,
    violation::Broken,
};

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shrinking {
    /// Runs so far.
    pub runs: u64,
    /// How many runs there may be.
    pub most: u64,
    /// How many things are still done.
    pub left: usize,
    /// How many nodes there still are.
    pub nodes: usize,
}

/// What is tried, and how often.
struct Shrinker<'a> {
    invariant: &'static str,
    cast: &'a Cast,
    runs: u64,
    most: u64,
    progress: &'a mut dyn FnMut(Shrinking),
}

impl Schedule {
    /// The shortest that was found within `most` runs that breaks the same. `progress` is told of each.
    #[must_use]
    pub fn shrink(&self, most: u64, progress: &mut dyn FnMut(Shrinking)) -> Self {
        let Some(violation) = &self.violation else { return self.clone() };
        let mut shrinker = Shrinker { invariant: violation.invariant, cast: &self.cast, runs: 0, most, progress };
        if self.ops.is_empty() {
            return shrinker.simplify_run(self);
        }
        // A simpler run to begin with, if there is one: that of another draw, perhaps.
        let simpler = shrinker.simplify_run(self);
        let start = if simpler.ops.is_empty() { self.clone() } else { simpler };
        let Self { mut setup, mut ops, options, .. } = start;
        loop {
            let before = (setup.clone(), ops.clone());
            shrinker.leave_nodes_out(&mut setup, &mut ops);
            shrinker.leave_steps_out(&setup, &mut ops);
            shrinker.simplify_setup(&mut setup, &mut ops);
            shrinker.simplify_commands(&setup, &mut ops);
            if before == (setup.clone(), ops.clone()) || shrinker.is_spent() {
                break;
            }
        }
        let ended = perform(&setup, &self.cast, &ops, Trace::Off, Vec::new());
        let violation = ended.broken.map(|Broken(invariant, what)| Violation {
            invariant,
            seed: options.seed,
            at: ended.at,
            what,
        });
        Self { options, setup, violation, digest: ended.digest, ops, cast: self.cast.clone() }
    }
}

impl Shrinker<'_> {
    const fn is_spent(&self) -> bool {
        self.runs >= self.most
    }

    /// Does it break the same? Then what comes after that is left out as well.
    fn fails(&mut self, setup: &Setup, ops: &[Timed]) -> Option<usize> {
        if self.is_spent() {
            return None;
        }
        self.runs += 1;
        (self.progress)(Shrinking { runs: self.runs, most: self.most, left: ops.len(), nodes: setup.nodes });
        let Ended { broken, performed, .. } = perform(setup, self.cast, ops, Trace::Off, Vec::new());
        (broken?.0 == self.invariant).then_some(performed)
    }

    /// Tries a list in the place of another.
    fn take(&mut self, setup: &Setup, ops: &mut Vec<Timed>, mut candidate: Vec<Timed>) -> bool {
        match self.fails(setup, &candidate) {
            Some(performed) => {
                candidate.truncate(performed);
                *ops = candidate;
                true
            }
            None => false,
        }
    }

    // ---- the run as it was drawn ----

    /// Nodes are left out, and kinds of faults, one after another, as long as the run or one of the next few still breaks the same.
    fn simplify_run(&mut self, schedule: &Schedule) -> Schedule {
        let mut best = schedule.options.clone();
        for nodes in 1..schedule.setup.nodes {
            if let Some(simpler) = self.breaks_too(schedule, &Options { nodes: Some(nodes), ..best.clone() }) {
                best = simpler;
                break;
            }
        }
        for kind in Without::ALL {
            let mut options = best.clone();
            if !options.without.contains(kind) {
                options.without.push(*kind);
                best = self.breaks_too(schedule, &options).unwrap_or(best);
            }
        }
        if best == schedule.options {
            return schedule.clone();
        }
        let simpler = Schedule::record_with(&best, self.cast);
        let same = |simpler: &Schedule| {
            let violation = simpler.violation.as_ref();
            violation.is_some_and(|violation| violation.invariant == self.invariant)
        };
        simpler.filter(same).unwrap_or_else(|| schedule.clone())
    }

    fn breaks_too(&mut self, schedule: &Schedule, options: &Options) -> Option<Options> {
        for seed in options.seed..options.seed.saturating_add(4) {
            if self.runs >= self.most / 4 {
                return None;
            }
            self.runs += 1;
            let (left, nodes) = (schedule.ops.len(), options.nodes.unwrap_or(schedule.setup.nodes));
            (self.progress)(Shrinking { runs: self.runs, most: self.most, left, nodes });
            let options = Options { seed, ..options.clone() };
            if run_with(&options, self.cast).err().is_some_and(|violation| violation.invariant == self.invariant) {
                return Some(options);
            }
        }
        None
    }

    // ---- what was done ----

    /// All that one node does; and the last node altogether, if nobody misses it.
    fn leave_nodes_out(&mut self, setup: &mut Setup, ops: &mut Vec<Timed>) {
        for slot in (0..setup.slots).rev() {
            if !ops.iter().any(|Timed(_, op)| op.slot() == Some(slot)) {
                continue;
            }
            let candidate = ops.iter().filter(|Timed(_, op)| op.slot() != Some(slot)).cloned().collect();
            self.take(setup, ops, candidate);
        }
        while setup.nodes > 1 && setup.slots == setup.nodes {
            let Some((smaller, candidate)) = without_last(setup, ops) else { return };
            let Some(performed) = self.fails(&smaller, &candidate) else { return };
            (*setup, *ops) = (smaller, candidate);
            ops.truncate(performed);
        }
    }

    /// Halves, quarters and so on, down to single steps: whatever is not needed goes.
    fn leave_steps_out(&mut self, setup: &Setup, ops: &mut Vec<Timed>) {
        let mut size = (ops.len() / 2).max(1);
        loop {
            // From the end: what came last needs what came first more often than the reverse.
            let mut end = ops.len();
            while end > 0 && !self.is_spent() {
                let start = end.saturating_sub(size);
                let mut candidate = ops.clone();
                candidate.drain(start..end.min(ops.len()));
                self.take(setup, ops, candidate);
                end = start.min(ops.len());
            }
            if size == 1 || self.is_spent() {
                return;
            }
            size = size.div_ceil(2);
            if size == 2 {
                size = 1;
            }
        }
    }

    /// A configuration that is easier to read.
    fn simplify_setup(&mut self, setup: &mut Setup, ops: &mut Vec<Timed>) {
        let plain = Config::new(NodeId(1));
        let used = 1 + ops.iter().filter_map(|Timed(_, op)| op.slot()).max().unwrap_or(0);
        let members = setup.membership.members().last().map_or(0, |id| id.0 as usize);
        let edits: [&dyn Fn(&mut Setup); 8] = [
            &|setup| setup.slots = used.max(setup.nodes).max(members),
            &|setup| setup.priorities = false,
            &|setup| setup.durable_machine = false,
            &|setup| setup.config.pre_vote = false,
            &|setup| setup.config.check_quorum = false,
            &|setup| setup.config.lease_reads = false,
            &|setup| {
                setup.config.max_inflight_messages = plain.max_inflight_messages;
                setup.config.max_inflight_bytes = plain.max_inflight_bytes;
                setup.config.max_append_bytes = plain.max_append_bytes;
            },
            &|setup| {
                setup.config.max_cached_bytes = plain.max_cached_bytes;
                setup.config.max_applying_bytes = plain.max_applying_bytes;
                setup.config.max_uncommitted_bytes = plain.max_uncommitted_bytes;
                setup.config.max_unpersisted_bytes = plain.max_unpersisted_bytes;
                setup.config.max_reads = plain.max_reads;
            },
        ];
        for edit in edits {
            let mut simpler = setup.clone();
            edit(&mut simpler);
            if simpler != *setup
                && let Some(performed) = self.fails(&simpler, ops)
            {
                *setup = simpler;
                ops.truncate(performed);
            }
        }
    }

    /// Commands without anything that means nothing, and one at a time.
    fn simplify_commands(&mut self, setup: &Setup, ops: &mut Vec<Timed>) {
        for at in 0..ops.len() {
            let Some(Timed(_, Op::Input { what: What::Propose { commands, pad, .. }, .. })) = ops.get(at) else {
                continue;
            };
            let longer = (commands.len() > 1, *pad > 0);
            let shorter: [fn(&mut Vec<bytes::Bytes>, &mut u32); 2] =
                [|_, pad| *pad = 0, |commands, _| commands.truncate(1)];
            for shorten in shorter {
                let mut candidate = ops.clone();
                if let Some(Timed(_, Op::Input { what: What::Propose { commands, pad, .. }, .. })) = candidate.get_mut(at)
                    && longer != (false, false)
                {
                    shorten(commands, pad);
                    if candidate != *ops {
                        self.take(setup, ops, candidate);
                    }
                }
            }
        }
    }
}

/// The cluster without its last node, if something is left that can decide.
fn without_last(setup: &Setup, ops: &[Timed]) -> Option<(Setup, Vec<Timed>)> {
    let slot = setup.nodes - 1;
    let last = NodeId(slot as u64 + 1);
    let membership = &setup.membership;
    let voters: Vec<NodeId> = membership.voters().iter().copied().filter(|id| *id != last).collect();
    if voters.is_empty() || membership.is_joint() {
        return None;
    }
    let smaller = Setup {
        nodes: slot,
        slots: slot,
        membership: Membership::of_voters(voters),
        ..setup.clone()
    };
    let mut provisioned = 0;
    let kept = ops.iter().filter(|Timed(_, op)| {
        provisioned += usize::from(matches!(op, Op::Provision { .. }));
        !(op.slot() == Some(slot) || matches!(op, Op::Provision { .. }) && provisioned > slot)
    });
    let kept = kept.map(|Timed(at, op)| match op {
        Op::Provision { .. } => Timed(*at, Op::Provision { membership: smaller.membership.clone() }),
        other => Timed(*at, other.clone()),
    });
    Some((smaller.clone(), kept.collect()))
}
