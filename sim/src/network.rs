//! The network: it delays, loses, repeats, holds up and cuts off, but never says who sent what wrongly.

use quorate_core::{Body, wire};

use crate::{
    lab::Parcel,
    plan::{Delays, Plan},
    rng::Rng,
    stats::{Count, Counts},
    violation::{Broken, hold},
};

/// What lies between the nodes.
#[derive(Debug)]
pub(crate) struct Network {
    rng: Rng,
    nodes: usize,
    /// `cut[from * nodes + to]`: nothing gets through.
    cut: Vec<bool>,
    /// Until then, what is sent waits.
    clogged: Vec<u64>,
    /// A few old messages, to be sent again.
    old: Vec<Parcel>,
}

impl Network {
    pub(crate) fn new(rng: Rng, nodes: usize) -> Self {
        let links = nodes * nodes;
        Self { rng, nodes, cut: vec![false; links], clogged: vec![0; links], old: Vec::new() }
    }

    /// Cuts the link from one to another, in this direction, or mends it.
    pub(crate) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    /// Holds up what is sent from one to another, until then.
    pub(crate) fn clog(&mut self, from: usize, to: usize, until: u64) {
        let clogged = &mut self.clogged[from * self.nodes + to];
        *clogged = until.max(*clogged);
    }

    /// Mends everything.
    pub(crate) fn heal(&mut self) {
        self.cut.fill(false);
        self.clogged.fill(0);
        self.old.clear();
    }

    /// Sends: tells of what will arrive, and when. Why, if not all of it will.
    ///
    /// # Errors
    /// If a message does not survive being written down.
    pub(crate) fn send(
        &mut self,
        now: u64,
        parcel: Parcel,
        plan: &Plan,
        counts: &mut Counts,
        mut arrive: impl FnMut(u64, Parcel),
    ) -> Result<Option<&'static str>, Broken> {
        counts.bump(Count::Sent);
        let parcel = self.make_vague(parcel, plan, counts);
        let Some(parcel) = self.carry(parcel, plan, counts)? else { return Ok(Some("it was damaged")) };
        let link = parcel.from * self.nodes + parcel.to;
        let copies = 1 + usize::from(self.rng.chance(plan.duplicate));
        if copies > 1 {
            counts.bump(Count::Duplicated);
        }
        let mut lost = None;
        for _ in 0..copies {
            if self.rng.chance(plan.loss) {
                counts.bump(Count::Lost);
                lost = Some("the network lost it");
            } else {
                let sent = now.max(self.clogged[link]);
                arrive(sent + self.delay(plan), parcel.clone());
            }
        }
        if plan.replay > 0.0 {
            if self.old.len() < 64 {
                self.old.push(parcel);
            } else {
                let at = self.rng.index(64);
                self.old[at] = parcel;
            }
            if self.rng.chance(plan.replay) {
                counts.bump(Count::Replayed);
                let at = self.rng.index(self.old.len());
                let again = self.old[at].clone();
                arrive(now + self.delay(plan), again);
            }
        }
        Ok(lost)
    }

    /// As another version of a follower might put it.
    fn make_vague(&mut self, mut parcel: Parcel, plan: &Plan, counts: &mut Counts) -> Parcel {
        if matches!(parcel.message.body, Body::Conflict { .. }) && self.rng.chance(plan.vague) {
            counts.bump(Count::Vague);
            parcel.make_vague();
        }
        parcel
    }

    fn delay(&mut self, plan: &Plan) -> u64 {
        let mean = plan.delay_mean;
        plan.delay_min
            + match plan.delays {
                Delays::Exponential => self.rng.exponential(mean),
                Delays::Uniform => self.rng.below(2 * mean + 1),
                // Nine in ten are quick, one takes many times as long.
                Delays::TwoWays => {
                    let slow = self.rng.chance(0.1);
                    self.rng.exponential(if slow { 6 * mean } else { mean / 2 })
                }
                // Pareto's, with a finite mean: now and then, one is very late.
                Delays::HeavyTailed => {
                    let unit = 1.0 - self.rng.unit();
                    ((mean as f64 / 2.0) / unit.max(1e-4).sqrt()) as u64
                }
            }
    }

    /// Some travel as bytes, and must arrive as they were. Damaged ones are lost.
    fn carry(&mut self, parcel: Parcel, plan: &Plan, counts: &mut Counts) -> Result<Option<Parcel>, Broken> {
        if !self.rng.chance(plan.as_bytes.max(plan.corrupt)) {
            return Ok(Some(parcel));
        }
        let frame = wire::encode(&parcel.message).to_bytes();
        if self.rng.chance(plan.corrupt) {
            counts.bump(Count::Corrupted);
            let mut damaged = frame.to_vec();
            for _ in 0..=self.rng.below(3) {
                let at = self.rng.index(damaged.len());
                damaged[at] ^= 1 << self.rng.below(8);
            }
            // The codec must cope; what it makes of them is for nobody, for the transport's checksum has told.
            let _read_or_refused = wire::decode(&damaged);
            return Ok(None);
        }
        let decoded = wire::decode(&frame);
        hold!(decoded.as_ref() == Ok(&parcel.message), "wire", "{:?} arrives as {decoded:?}", parcel.message);
        Ok(Some(parcel))
    }
}
