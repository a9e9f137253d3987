//! A workload from thin air: what is to be done, and what must be there after it. It is made from a seed alone, so that it
//! is the same whatever the store does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use quorate_core::{GroupId, HardState, Index, LogId, Membership, NodeId, Rebase, Run, Snapshot, Term};

use super::{
    Rng,
    model::{Model, Partial, Presence, Shot, Spec, voters},
};

/// Who stages a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lane {
    /// It is taken here.
    Take,
    /// A peer has sent it.
    Receive,
}

/// One call of a store.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(Vec<(GroupId, Membership)>),
    Remove(GroupId),
    Recover(GroupId),
    RecoverMany(Vec<GroupId>),
    Commit(Vec<Spec>),
    Settle,
    /// Close it, and open it again.
    Reopen,
    Begin(GroupId, Lane, Arc<Shot>),
    /// Write on, until so much is staged.
    Stage(GroupId, Lane, u64),
    Sync(GroupId, Lane),
    Publish(GroupId, Lane),
    Drop(GroupId, Lane),
}

/// One call, and what the group or groups are after it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) op: Op,
    /// For every group that it changes, what it goes through, to what it is in the end.
    pub(super) through: BTreeMap<GroupId, Vec<Arc<Model>>>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Those that it begins with.
    pub(super) groups: Vec<(GroupId, Membership)>,
    /// All that it ever has, in order.
    pub(super) all: Vec<GroupId>,
    pub(super) steps: Vec<Step>,
}

/// The groups that all workloads have.
pub(super) fn groups() -> Vec<(GroupId, Membership)> {
    vec![(GroupId(0), voters(3)), (GroupId(1), voters(1)), (GroupId(1 << 40), voters(5))]
}

impl Plan {
    /// A workload of so many commits.
    pub(super) fn new(seed: u64, commits: usize) -> Self {
        Self::with(seed, commits, 52, &[])
    }

    /// One in which groups come and go.
    pub(super) fn of_groups(seed: u64, commits: usize) -> Self {
        // Beside those that it begins with, and between them.
        let spare = [2, 3, (1 << 40) - 1, (1 << 40) + 1, u64::MAX - 1, u64::MAX].map(GroupId);
        Self::with(seed, commits, 40, &spare)
    }

    /// One in which most of what is done is done to snapshots.
    pub(super) fn of_snapshots(seed: u64, commits: usize) -> Self {
        Self::with(seed, commits, 15, &[])
    }

    /// So many percent of the steps are commits, and these groups may be created.
    fn with(seed: u64, commits: usize, percent: u64, spare: &[GroupId]) -> Self {
        let groups = groups();
        let mut maker = Maker {
            rng: Rng::new(seed ^ 0x0C0F_FEE0),
            models: groups.iter().map(|(id, membership)| (*id, Model::new(membership.clone()))).collect(),
            staging: BTreeMap::new(),
            steps: Vec::new(),
            percent,
            come_and_go: !spare.is_empty(),
            spare: spare.to_vec(),
        };
        for (id, _) in &groups {
            maker.push(Op::Recover(*id), BTreeMap::new());
        }
        let mut made = 0;
        while made < commits {
            let at = maker.steps.len();
            maker.any_step();
            made += maker.steps[at..].iter().filter(|step| matches!(step.op, Op::Commit(_))).count();
        }
        let begun = groups.iter().map(|(id, _)| *id);
        let later = maker.steps.iter().flat_map(|step| step.through.keys().copied());
        let all: BTreeSet<GroupId> = begun.chain(later).collect();
        Self { seed, groups, all: all.into_iter().collect(), steps: maker.steps }
    }

    /// What a group is once so many steps are done.
    pub(super) fn after(&self, group: GroupId, steps: usize) -> Arc<Model> {
        let newest = self.steps[..steps].iter().rev().find_map(|step| step.through.get(&group)?.last());
        newest.cloned().unwrap_or_else(|| {
            let of = self.groups.iter().find(|(id, _)| *id == group);
            Arc::new(of.map_or_else(|| Model::absent(Presence::NotYet), |(_, of)| Model::new(of.clone())))
        })
    }

    /// What a group may be if so many steps are done, and the next one is under way.
    pub(super) fn during(&self, group: GroupId, steps: usize) -> Vec<Arc<Model>> {
        let under_way = self.steps.get(steps).and_then(|step| step.through.get(&group));
        let mut all = vec![self.after(group, steps)];
        all.extend(under_way.into_iter().flatten().cloned());
        all
    }

    /// The groups that are here once so many steps are done.
    pub(super) fn here(&self, steps: usize) -> Vec<GroupId> {
        self.all.iter().copied().filter(|group| self.after(*group, steps).is_here()).collect()
    }

    /// Only the first so many steps.
    pub(super) fn cut(mut self, steps: usize) -> Self {
        self.steps.truncate(steps);
        self
    }

    pub(super) fn tell(&self, step: usize) -> String {
        self.steps.get(step).map_or_else(|| "nothing".to_owned(), |it| format!("step {step}, {}", it.op))
    }
}

struct Maker {
    rng: Rng,
    models: BTreeMap<GroupId, Model>,
    staging: BTreeMap<(GroupId, Lane), Staging>,
    steps: Vec<Step>,
    /// How many of a hundred steps are commits.
    percent: u64,
    come_and_go: bool,
    /// Groups that were never here.
    spare: Vec<GroupId>,
}

struct Staging {
    shot: Arc<Shot>,
    written: u64,
    synced: u64,
}

impl Maker {
    fn push(&mut self, op: Op, through: BTreeMap<GroupId, Vec<Arc<Model>>>) {
        self.steps.push(Step { op, through });
    }

    /// A step after which this group is as it is here now.
    fn changed(&mut self, op: Op, group: GroupId) {
        let now = Arc::new(self.models[&group].clone());
        self.push(op, BTreeMap::from([(group, vec![now])]));
    }

    fn any_group(&mut self) -> GroupId {
        let nth = self.rng.below(self.models.len() as u64) as usize;
        *self.models.keys().nth(nth).expect("there are groups")
    }

    fn any_step(&mut self) {
        if self.come_and_go && self.rng.chance(12) {
            return if self.rng.chance(50) { self.create() } else { self.remove() };
        }
        let group = self.any_group();
        match self.rng.below(100) {
            0..=2 => {
                self.drop_all(Some(group));
                self.push(Op::Recover(group), BTreeMap::new());
            }
            3..=5 => self.push(Op::Settle, BTreeMap::new()),
            6 | 7 => {
                self.drop_all(None);
                self.push(Op::Reopen, BTreeMap::new());
                let groups: Vec<GroupId> = self.models.keys().copied().collect();
                if self.come_and_go && self.rng.chance(70) {
                    return self.push(Op::RecoverMany(groups), BTreeMap::new());
                }
                for group in groups {
                    self.push(Op::Recover(group), BTreeMap::new());
                }
            }
            n if n < 8 + self.percent => self.commit(),
            _ => self.snapshot(group),
        }
    }

    fn create(&mut self) {
        let mut groups = Vec::new();
        let mut through = BTreeMap::new();
        for _ in 0..=self.rng.below(3) {
            if self.spare.is_empty() {
                break;
            }
            let nth = self.rng.below(self.spare.len() as u64) as usize;
            let (group, membership) = (self.spare.swap_remove(nth), voters(1 + self.rng.below(5)));
            let model = Model::new(membership.clone());
            through.insert(group, vec![Arc::new(model.clone())]);
            self.models.insert(group, model);
            groups.push((group, membership));
        }
        if groups.is_empty() {
            return;
        }
        let created = groups.iter().map(|(group, _)| *group).collect();
        self.push(Op::Create(groups), through);
        self.push(Op::RecoverMany(created), BTreeMap::new());
    }

    fn remove(&mut self) {
        if self.models.len() < 3 {
            return;
        }
        let group = self.any_group();
        if self.rng.chance(50) {
            self.drop_all(Some(group));
        }
        self.models.remove(&group);
        let removed = Arc::new(Model::absent(Presence::Removed));
        self.push(Op::Remove(group), BTreeMap::from([(group, vec![removed])]));
        // Whoever was staging a snapshot of it lets go of it later.
        for lane in [Lane::Take, Lane::Receive] {
            if self.staging.remove(&(group, lane)).is_some() {
                self.push(Op::Drop(group, lane), BTreeMap::new());
            }
        }
    }

    fn commit(&mut self) {
        let mut specs = Vec::new();
        let mut through: BTreeMap<GroupId, Vec<Arc<Model>>> = BTreeMap::new();
        for _ in 0..=self.rng.below(3) {
            let group = self.any_group();
            let spec = self.spec(group);
            through.entry(group).or_default().push(Arc::new(self.models[&group].clone()));
            specs.push(spec);
        }
        self.push(Op::Commit(specs), through);
    }

    /// A write that fits, and is made here.
    fn spec(&mut self, group: GroupId) -> Spec {
        let floor = self.floor(group);
        let (model, rng) = (self.models.get_mut(&group).expect("a group"), &mut self.rng);
        let mut spec = Spec::new(group);
        let (base, last) = (model.base.last.index, model.last());
        let raise = |spec: &mut Spec, model: &Model, term: Term, vote| {
            if term > model.hard_state.term {
                spec.hard_state = Some(HardState { term, vote });
            }
        };
        let term = model.hard_state.term.max(Term(1));
        let newer = Term(term.0 + 1 + rng.below(2));
        let waiting =
            model.published.last().filter(|shot| !model.holds(shot.last()) && shot.last().index > base);
        let newest = model.newest().map_or(Index(0), |shot| shot.last().index);
        match rng.below(20) {
            0..=9 if waiting.is_some() => {
                let snapshot = waiting.expect("just asked").info.snapshot.clone();
                raise(&mut spec, model, snapshot.last.term, None);
                spec.rebase = Some(Rebase::Install(snapshot));
            }
            0..=8 => {
                let term = if rng.chance(25) { newer } else { term };
                raise(&mut spec, model, term, Some(NodeId(3)));
                append(&mut spec, term, last.index.next(), rng);
            }
            9 | 10 => {
                raise(&mut spec, model, term, None);
                let membership = voters(1 + rng.below(5));
                spec.entries.push(Run::membership(term, last.index.next(), &membership));
            }
            11 | 12 => {
                // Another leader's entries take the place of what is not committed.
                let from = Index((last.index.0 + 1).saturating_sub(rng.below(7)).max(floor.0 + 1));
                raise(&mut spec, model, newer, None);
                spec.truncate = Some(from);
                if rng.chance(70) {
                    append(&mut spec, newer, from, rng);
                }
            }
            13..=16 if newest > base => {
                let at = Index(base.0 + 1 + rng.below(newest.0 - base.0));
                let last = model.id_at(at).expect("it is in the log");
                spec.rebase = Some(Rebase::Compact(Snapshot { last, membership: model.membership_at(at) }));
                if rng.chance(25) {
                    raise(&mut spec, model, term, None);
                    append(&mut spec, term, model.last().index.next(), rng);
                }
            }
            _ => {
                let vote = rng.chance(70).then(|| NodeId(1 + rng.below(3)));
                spec.hard_state = Some(HardState { term: newer, vote });
            }
        }
        model.apply(&spec);
        spec
    }

    /// What is up to here is committed: there is a snapshot of it, or one is being taken.
    fn floor(&self, group: GroupId) -> Index {
        let model = &self.models[&group];
        let newest = model.newest().map_or(Index(0), |shot| shot.last().index);
        let taken = self.staging.get(&(group, Lane::Take)).map(|it| it.shot.last());
        let taken = taken.filter(|id| model.holds(*id)).map_or(Index(0), |id| id.index);
        newest.max(model.base.last.index).max(taken)
    }

    fn snapshot(&mut self, group: GroupId) {
        let lane = if self.rng.chance(50) { Lane::Take } else { Lane::Receive };
        let Some(staging) = self.staging.get(&(group, lane)) else { return self.begin(group, lane) };
        let whole = staging.shot.bytes.len() as u64;
        let (model, last) = (&self.models[&group], staging.shot.last());
        let newest = model.published.last().map(|shot| shot.last());
        let overtaken = newest.is_some_and(|newest| newest.index >= last.index)
            || (lane == Lane::Take
                && (!model.holds(last) || newest.is_some_and(|newest| !model.holds(newest))));
        if overtaken || self.rng.chance(8) {
            return self.drop_one(group, lane);
        }
        let left = whole - staging.written;
        match self.rng.below(10) {
            0 | 1 => {
                let staging = self.staging.get_mut(&(group, lane)).expect("just seen");
                staging.synced = staging.written;
                if lane == Lane::Receive {
                    self.note_partial(group);
                }
                self.changed(Op::Sync(group, lane), group);
            }
            _ if left == 0 => {
                let staging = self.staging.remove(&(group, lane)).expect("just seen");
                let model = self.models.get_mut(&group).expect("a group");
                model.publish(staging.shot);
                self.changed(Op::Publish(group, lane), group);
            }
            _ => {
                let to = whole - left + 1 + self.rng.below(left);
                let to = if self.rng.chance(40) { whole } else { to };
                self.staging.get_mut(&(group, lane)).expect("just seen").written = to;
                if lane == Lane::Receive {
                    self.note_partial(group);
                }
                self.changed(Op::Stage(group, lane, to), group);
            }
        }
    }

    fn begin(&mut self, group: GroupId, lane: Lane) {
        let model = &self.models[&group];
        let newest = model.published.last().map_or(LogId::ZERO, |shot| shot.last());
        let last = model.last();
        let (shot, staged) = match lane {
            Lane::Take => {
                let from = newest.index.max(model.base.last.index);
                // One that waits to be installed is newer than all that could be taken here.
                if (newest != LogId::ZERO && !model.holds(newest)) || last.index <= from {
                    return;
                }
                let at = Index(from.0 + 1 + self.rng.below(last.index.0 - from.0));
                let last = model.id_at(at).expect("it is in the log");
                let snapshot = Snapshot { last, membership: model.membership_at(at) };
                (Shot::new(snapshot, any_bytes(&mut self.rng)), 0)
            }
            Lane::Receive => match &model.received {
                Some(partial) if self.rng.chance(60) => (partial.shot.clone(), partial.synced),
                // Two of one entry may differ in their bytes.
                Some(partial) if self.rng.chance(50) => {
                    (Shot::new(partial.shot.info.snapshot.clone(), any_bytes(&mut self.rng)), 0)
                }
                _ => {
                    let floor = self.floor(group).max(newest.index);
                    let term = Term(model.hard_state.term.max(newest.term).max(last.term).0 + 1);
                    let ahead = if self.rng.chance(70) { last.index.max(floor) } else { floor };
                    let last = LogId::new(term, Index(ahead.0 + 1 + self.rng.below(9)));
                    let snapshot = Snapshot { last, membership: voters(1 + self.rng.below(5)) };
                    (Shot::new(snapshot, any_bytes(&mut self.rng)), 0)
                }
            },
        };
        self.staging.insert((group, lane), Staging { shot: shot.clone(), written: staged, synced: staged });
        if lane == Lane::Receive {
            self.note_partial(group);
        }
        self.changed(Op::Begin(group, lane, shot), group);
    }

    /// What there is of a transfer now.
    fn note_partial(&mut self, group: GroupId) {
        let Staging { shot, written, synced } = &self.staging[&(group, Lane::Receive)];
        let model = self.models.get_mut(&group).expect("a group");
        let before = model.received.take().filter(|before| Arc::ptr_eq(&before.shot, shot));
        let may_go = before.is_some_and(|before| before.may_go) || shot.last().index <= model.last().index;
        model.received = Some(Partial { shot: shot.clone(), written: *written, synced: *synced, may_go });
    }

    fn drop_one(&mut self, group: GroupId, lane: Lane) {
        if self.staging.remove(&(group, lane)).is_none() {
            return;
        }
        if lane == Lane::Receive {
            let received = &mut self.models.get_mut(&group).expect("a group").received;
            if let Some(partial) = received {
                partial.written = partial.synced;
            }
            received.take_if(|partial| partial.synced == 0);
        }
        self.changed(Op::Drop(group, lane), group);
    }

    /// Those of a group, or of all.
    fn drop_all(&mut self, of: Option<GroupId>) {
        let all: Vec<_> = self.staging.keys().copied().collect();
        for (group, lane) in all {
            if of.is_none_or(|of| of == group) {
                self.drop_one(group, lane);
            }
        }
    }
}

fn any_size(rng: &mut Rng) -> usize {
    let upto = match rng.below(40) {
        0..=3 => 1,
        4..=32 => 300,
        33..=38 => 5_000,
        _ => 60_000,
    };
    rng.below(upto) as usize
}

fn any_bytes(rng: &mut Rng) -> Vec<u8> {
    let upto = match rng.below(10) {
        0 => 1,
        1..=7 => 3_000,
        8 => 30_000,
        _ => 150_000,
    };
    let len = rng.below(upto) as usize;
    rng.bytes(len)
}

fn append(spec: &mut Spec, term: Term, first: Index, rng: &mut Rng) {
    let mut next = first;
    for _ in 0..=rng.below(2) {
        let commands: Vec<Vec<u8>> = (0..=rng.below(4))
            .map(|_| {
                let len = any_size(rng);
                rng.bytes(len)
            })
            .collect();
        let run = Run::commands(term, next, &commands).expect("there is one at least");
        next = run.last().next();
        spec.entries.push(run);
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(groups) => {
                f.write_str("create")?;
                groups.iter().try_for_each(|(group, _)| write!(f, " group {group}"))
            }
            Self::Remove(group) => write!(f, "remove group {group}"),
            Self::Recover(group) => write!(f, "recover group {group}"),
            Self::RecoverMany(groups) => {
                f.write_str("recover at once")?;
                groups.iter().try_for_each(|group| write!(f, " group {group}"))
            }
            Self::Commit(specs) => {
                f.write_str("commit")?;
                specs.iter().try_for_each(|spec| write!(f, " [{spec}]"))
            }
            Self::Settle => f.write_str("settle"),
            Self::Reopen => f.write_str("close and open"),
            Self::Begin(group, lane, shot) => {
                write!(f, "{lane:?} {} ({} bytes) in group {group}", shot.last(), shot.bytes.len())
            }
            Self::Stage(group, lane, to) => write!(f, "stage up to byte {to} ({lane:?}, group {group})"),
            Self::Sync(group, lane) => write!(f, "sync what is staged ({lane:?}, group {group})"),
            Self::Publish(group, lane) => write!(f, "publish ({lane:?}, group {group})"),
            Self::Drop(group, lane) => write!(f, "drop the writer ({lane:?}, group {group})"),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.group)?;
        if let Some(HardState { term, vote }) = self.hard_state {
            write!(f, ", term {term} vote {vote:?}")?;
        }
        match &self.rebase {
            Some(Rebase::Compact(base)) => write!(f, ", compact to {}", base.last)?,
            Some(Rebase::Install(snapshot)) => write!(f, ", install {}", snapshot.last)?,
            None => {}
        }
        if let Some(from) = self.truncate {
            write!(f, ", truncate from {from}")?;
        }
        for run in &self.entries {
            write!(f, ", append {} to {} ({} bytes)", run.first(), run.last_id(), run.bytes())?;
        }
        Ok(())
    }
}
