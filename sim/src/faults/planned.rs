//! Faults that somebody plans, beside those that are drawn: how strong, or what exactly and when.

use std::time::Duration;

use quorate_core::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    faults::Fault,
    plan::Plan,
    violation::Verdict,
    world::{Event, World},
};

/// How strong faults are, where it is not to be drawn: what is `None` is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The share of messages that are lost, from 0 to 1.
    pub loss: Option<f64>,
    /// The share of messages that arrive twice.
    pub duplicates: Option<f64>,
    /// The least that a message takes.
    pub delay_min: Option<Duration>,
    /// What it takes on average beyond that.
    pub delay_mean: Option<Duration>,
    /// Mean time between crashes; zero for none.
    pub crash_every: Option<Duration>,
    /// Mean time for which a process stays down.
    pub down_for: Option<Duration>,
    /// Mean time between pauses of a process; zero for none.
    pub pause_every: Option<Duration>,
    /// Mean length of one.
    pub pause_for: Option<Duration>,
    /// Mean time between partitions; zero for none.
    pub cut_every: Option<Duration>,
    /// Mean length of one.
    pub cut_for: Option<Duration>,
    /// What a commit takes on average.
    pub disk_mean: Option<Duration>,
    /// The share of commits that fail.
    pub disk_fails: Option<f64>,
    /// Mean time between snapshots; zero for none.
    pub snapshot_every: Option<Duration>,
    /// Mean time between requests.
    pub request_every: Option<Duration>,
}

/// Something that happens in every run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Strike {
    /// A process crashes, and starts again after this.
    Crash(NodeId, Duration),
    /// So does whoever leads.
    CrashLeader(Duration),
    /// A process stops for this long.
    Pause(NodeId, Duration),
    /// These can't speak with the others for this long.
    Partition(Vec<NodeId>, Duration),
}

/// When.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// µs of virtual time.
    pub at: u64,
    /// What.
    pub strike: Strike,
}

impl Plan {
    /// What is said takes the place of what was drawn.
    pub(crate) fn obey(&mut self, faults: &Faults) {
        let set_share = |to: &mut f64, from: Option<f64>| *to = from.map_or(*to, |share| share.clamp(0.0, 1.0));
        let set_time = |to: &mut u64, from: Option<Duration>| *to = from.map_or(*to, |time| time.as_micros() as u64);
        set_share(&mut self.loss, faults.loss);
        set_share(&mut self.duplicate, faults.duplicates);
        set_share(&mut self.disk_fails, faults.disk_fails);
        set_time(&mut self.delay_min, faults.delay_min);
        set_time(&mut self.delay_mean, faults.delay_mean);
        set_time(&mut self.crash_every, faults.crash_every);
        set_time(&mut self.down_mean, faults.down_for);
        set_time(&mut self.pause_every, faults.pause_every);
        set_time(&mut self.pause_mean, faults.pause_for);
        set_time(&mut self.cut_every, faults.cut_every);
        set_time(&mut self.cut_mean, faults.cut_for);
        set_time(&mut self.disk_mean, faults.disk_mean);
        set_time(&mut self.snapshot_every, faults.snapshot_every);
        set_time(&mut self.request_every, faults.request_every);
        self.request_every = self.request_every.max(1);
    }
}

impl World {
    /// What was planned happens.
    pub(crate) fn strike_planned(&mut self, at: usize) -> Verdict {
        let Some(Planned { strike, .. }) = self.plan.planned.get(at).cloned() else { return Ok(()) };
        let there = |id: NodeId| (id.0 as usize).checked_sub(1).filter(|slot| *slot < self.hosts.len());
        let us = |time: Duration| time.as_micros() as u64;
        match strike {
            Strike::Crash(id, down) => self.crash_for(there(id), us(down)),
            Strike::CrashLeader(down) => self.crash_for(self.leader(), us(down)),
            Strike::Pause(id, length) => there(id).map_or(Ok(()), |slot| self.pause(slot, us(length))),
            Strike::Partition(ids, length) => {
                let part: Vec<usize> = ids.into_iter().filter_map(there).collect();
                let others = (0..self.hosts.len()).filter(|slot| !part.contains(slot)).collect::<Vec<_>>();
                for (one, other) in part.iter().flat_map(|one| others.iter().map(move |other| (*one, *other))) {
                    self.network.set_cut(one, other, true);
                    self.network.set_cut(other, one, true);
                }
                self.push(us(length), Event::Fault(Fault::Mend));
                self.lab.tell(&part, || "a partition begins".into())
            }
        }
    }

    fn crash_for(&mut self, slot: Option<usize>, down: u64) -> Verdict {
        let Some(slot) = slot else { return Ok(()) };
        self.push(down.max(1), Event::Restart { slot });
        self.crash(slot)
    }
}
