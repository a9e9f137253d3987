//! Does what a plan says to a store.

use std::{collections::BTreeMap, fmt, sync::Arc};

use quorate_core::{GroupId, Incarnation, Write};

use super::{
    Disk, Setup,
    erased::{AnyStore, AnyWriter, Trouble},
    harness::{Made, Maker},
    model::{Model, Shot, Spec, observe},
    plan::{Lane, Op, Plan},
};

/// A store with what a driver has besides.
pub(super) struct Run<'a> {
    // Writers are dropped before their store.
    writers: BTreeMap<(GroupId, Lane), Staged<'a>>,
    store: Option<Box<dyn AnyStore<'a> + 'a>>,
    reopen: Box<dyn Fn() -> Made<'a> + 'a>,
    /// The trace in which it is marked what was acknowledged.
    disk: Option<Disk>,
    slack: u64,
    /// Reads all there is with each recovery.
    thorough: bool,
    lives: BTreeMap<GroupId, Life>,
    /// The newest incarnation of each group after each step.
    pub(super) incarnations: Vec<BTreeMap<GroupId, Incarnation>>,
}

struct Staged<'a> {
    writer: Box<dyn AnyWriter + 'a>,
    shot: Arc<Shot>,
}

#[derive(Clone, Copy)]
struct Life {
    incarnation: Incarnation,
    next: u64,
}

/// How a step ended that did not end well.
pub(super) enum Stop {
    /// The store said so.
    Trouble(Trouble),
    /// It did what it must not.
    Wrong(String),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(trouble) => write!(f, "the store says: {trouble}"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

impl<'a> Run<'a> {
    /// Bootstraps a store on `disk`.
    pub(super) fn on_disk(maker: &'a dyn Maker, plan: &Plan, disk: &Disk) -> Result<Self, Trouble> {
        let store = maker.make(disk, &plan.groups)?;
        disk.mark(0);
        let on = disk.clone();
        let reopen = Box::new(move || maker.reopen(&on));
        Ok(Self { disk: Some(disk.clone()), ..Self::new(store, reopen, maker.slack(), false) })
    }

    /// With a store in a place of its own.
    pub(super) fn in_place(setup: &'a dyn Setup, plan: &Plan) -> Self {
        let (store, reopen) = setup.start(&plan.groups).into_parts();
        Self::new(store, Box::new(move || Ok(reopen())), setup.slack(), true)
    }

    fn new(
        store: Box<dyn AnyStore<'a> + 'a>,
        reopen: Box<dyn Fn() -> Made<'a> + 'a>,
        slack: u64,
        thorough: bool,
    ) -> Self {
        Self {
            writers: BTreeMap::new(),
            store: Some(store),
            reopen,
            disk: None,
            slack,
            thorough,
            lives: BTreeMap::new(),
            incarnations: vec![BTreeMap::new()],
        }
    }

    /// Does all steps, and marks each in the trace once it has returned.
    pub(super) fn all(&mut self, plan: &Plan) -> Result<(), (usize, Stop)> {
        for n in 0..plan.steps.len() {
            self.step(plan, n).map_err(|stop| (n, stop))?;
            let now = self.lives.iter().map(|(group, life)| (*group, life.incarnation)).collect();
            self.incarnations.push(now);
            if let Some(disk) = &self.disk {
                disk.mark(n as u64 + 1);
            }
        }
        Ok(())
    }

    pub(super) fn store(&mut self) -> &mut (dyn AnyStore<'a> + 'a) {
        self.store.as_deref_mut().expect("it is open")
    }

    pub(super) fn step(&mut self, plan: &Plan, n: usize) -> Result<(), Stop> {
        match &plan.steps[n].op {
            Op::Create(groups) => match &groups[..] {
                [(group, membership)] => Ok(self.store().create(*group, membership)?),
                many => Ok(self.store().create_many(many)?),
            },
            Op::Remove(group) => {
                self.store().remove(*group)?;
                self.lives.remove(group);
                Ok(())
            }
            Op::Recover(group) => self.recover(*group, &plan.after(*group, n)),
            Op::RecoverMany(groups) => {
                let recovered = self.store().recover_many(groups)?;
                if recovered.len() != groups.len() {
                    return Err(Stop::Wrong(format!("{} recovered of {}", recovered.len(), groups.len())));
                }
                for (group, found) in groups.iter().zip(&recovered) {
                    let same = plan.after(*group, n).check_recovered(found);
                    self.begin_life(*group, found.incarnation)?;
                    same.map_err(|why| Stop::Wrong(format!("group {group}: {why}")))?;
                }
                Ok(())
            }
            Op::Commit(specs) => {
                let mut writes = Vec::new();
                for spec in specs {
                    writes.push(self.mint(spec));
                }
                Ok(self.store().commit(&writes)?)
            }
            Op::Settle => Ok(self.store().settle()?),
            Op::Reopen => Ok(self.reopen()?),
            Op::Begin(group, lane, shot) => {
                let snapshots = self.store().snapshots();
                let writer = match lane {
                    Lane::Take => snapshots.take(*group, &shot.info.snapshot)?,
                    Lane::Receive => snapshots.receive(*group, &shot.info)?,
                };
                let staged = writer.staged();
                self.writers.insert((*group, *lane), Staged { writer, shot: shot.clone() });
                if *lane == Lane::Take && staged > 0 {
                    return Err(Stop::Wrong(format!(
                        "a snapshot taken here begins with {staged} bytes staged"
                    )));
                }
                let model = plan.steps[n].through[group].last().expect("a step that changes it");
                check_resumed(model, *lane, staged, self.slack).map_err(Stop::Wrong)
            }
            Op::Stage(group, lane, to) => Ok(self.stage(*group, *lane, *to)?),
            Op::Sync(group, lane) => Ok(self.writer(*group, *lane).writer.sync()?),
            Op::Publish(group, lane) => {
                self.stage(*group, *lane, u64::MAX)?;
                let Staged { writer, shot } = self.writers.remove(&(*group, *lane)).expect("it has begun");
                let info = writer.publish()?;
                if info == shot.info {
                    return Ok(());
                }
                Err(Stop::Wrong(format!("published as {info:?}, but it is {:?}", shot.info)))
            }
            Op::Drop(group, lane) => {
                self.writers.remove(&(*group, *lane));
                Ok(())
            }
        }
    }

    fn recover(&mut self, group: GroupId, model: &Model) -> Result<(), Stop> {
        let (incarnation, same) = if self.thorough {
            let found = observe(self.store(), group)?;
            (found.recovered.incarnation, model.check(&found))
        } else {
            let recovered = self.store().recover(group)?;
            (recovered.incarnation, model.check_recovered(&recovered))
        };
        self.begin_life(group, incarnation)?;
        same.map_err(|why| Stop::Wrong(format!("group {group}: {why}")))
    }

    fn begin_life(&mut self, group: GroupId, incarnation: Incarnation) -> Result<(), Stop> {
        let before = self.lives.get(&group).map_or(Incarnation(0), |life| life.incarnation);
        if incarnation <= before {
            return Err(Stop::Wrong(format!("group {group}: incarnation {incarnation} after {before}")));
        }
        self.lives.insert(group, Life { incarnation, next: 1 });
        Ok(())
    }

    /// One more commit.
    pub(super) fn append(&mut self, spec: &Spec) -> Result<(), Trouble> {
        if !self.lives.contains_key(&spec.group) {
            self.recover_again(spec.group)?;
        }
        let before = self.lives.clone();
        let write = self.mint(spec);
        let result = self.store().commit(&[write]);
        if result.is_err() {
            self.lives = before;
        }
        result
    }

    /// Closes the store and opens it again.
    pub(super) fn reopen(&mut self) -> Result<(), Trouble> {
        self.writers.clear();
        self.store = None;
        self.store = Some((self.reopen)()?);
        Ok(())
    }

    /// One more recovery.
    pub(super) fn recover_again(&mut self, group: GroupId) -> Result<(), Trouble> {
        let incarnation = self.store().recover(group)?.incarnation;
        self.lives.insert(group, Life { incarnation, next: 1 });
        if let Some(newest) = self.incarnations.last_mut() {
            newest.insert(group, incarnation);
        }
        Ok(())
    }

    /// Does a writer take one more byte?
    pub(super) fn can_write(&mut self, group: GroupId, lane: Lane) -> bool {
        self.writers.get_mut(&(group, lane)).is_some_and(|it| it.writer.write(&[0]).is_ok())
    }

    pub(super) fn drop_writers(&mut self) {
        self.writers.clear();
    }

    pub(super) fn lists(&mut self, group: GroupId, shot: &Shot) -> Result<bool, Trouble> {
        Ok(self.store().snapshots().list(group)?.contains(&shot.info))
    }

    /// Stages a snapshot from its beginning to its end, or what is left of it.
    pub(super) fn stage_all(&mut self, group: GroupId, lane: Lane, shot: &Arc<Shot>) -> Result<(), Trouble> {
        let snapshots = self.store().snapshots();
        let mut writer = match lane {
            Lane::Take => snapshots.take(group, &shot.info.snapshot)?,
            Lane::Receive => snapshots.receive(group, &shot.info)?,
        };
        let rest = shot.bytes.get(writer.staged() as usize..).unwrap_or_default();
        writer.write(rest)?;
        writer.publish().map(drop)
    }

    pub(super) fn mint(&mut self, spec: &Spec) -> Write {
        let life = self.lives.get_mut(&spec.group).expect("it was recovered");
        life.next += 1;
        spec.mint(life.incarnation, life.next - 1)
    }

    fn writer(&mut self, group: GroupId, lane: Lane) -> &mut Staged<'a> {
        self.writers.get_mut(&(group, lane)).expect("it has begun")
    }

    fn stage(&mut self, group: GroupId, lane: Lane, to: u64) -> Result<(), Trouble> {
        let Staged { writer, shot } = self.writer(group, lane);
        let (from, to) = (writer.staged(), to.min(shot.info.bytes));
        match shot.bytes.get(from as usize..to as usize) {
            Some(bytes) => writer.write(bytes),
            None => Ok(()),
        }
    }
}

/// May a transfer go on there?
pub(super) fn check_resumed(model: &Model, lane: Lane, staged: u64, slack: u64) -> Result<(), String> {
    let Some(partial) = model.received.as_ref().filter(|_| lane == Lane::Receive) else { return Ok(()) };
    let at_least = if partial.may_go { 0 } else { partial.synced.saturating_sub(slack) };
    if (at_least..=partial.written).contains(&staged) {
        return Ok(());
    }
    Err(format!(
        "the transfer of the snapshot at {} goes on at byte {staged}; {} were synced, {} staged",
        partial.shot.last(),
        partial.synced,
        partial.written
    ))
}
