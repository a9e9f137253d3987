//! Snapshots: a driver takes them, sends them beside the core, and stages what comes.

use quorate_core::{Body, Index, Input, Message, NodeId, SendId, SendSnapshot};

use crate::{
    disk::Picture,
    stats::Count,
    violation::{Broken, Verdict, hold},
    watch::Seen,
    world::{Event, World},
};

/// A snapshot on its way.
#[derive(Clone, Debug)]
pub(crate) struct Shipment {
    from: usize,
    /// Which process sends it.
    life: u64,
    to: usize,
    id: SendId,
    message: Message,
    picture: Picture,
    /// The announcement's number.
    number: u64,
}

impl World {
    /// Some machine's state becomes a snapshot, and the next one later.
    pub(crate) fn take_snapshot(&mut self) -> Verdict {
        let delay = 1 + self.snapshot_rng.exponential(self.plan.snapshot_every);
        self.push(delay, Event::TakeSnapshot);
        if self.rest.is_quiet() {
            return Ok(());
        }
        let slot = self.snapshot_rng.index(self.nodes.len());
        let length = self.snapshot_rng.exponential(self.plan.snapshot_mean);
        let node = &mut self.nodes[slot];
        let life = node.life;
        let Some(process) = &mut node.process else { return Ok(()) };
        if node.paused || process.picturing {
            return Ok(());
        }
        if self.snapshot_rng.chance(0.05) {
            // A driver that is wrong about what it has: refused, or something is lost.
            let snapshot = Index(process.machine.0 + 1 + self.snapshot_rng.below(5));
            return self.step(slot, Input::Compact { snapshot, keep: 0 });
        }
        process.picturing = true;
        let (index, state) = process.machine;
        self.push(length, Event::SnapshotTaken { slot, life, index, state });
        Ok(())
    }

    /// It is durable now: the core may let its log begin later.
    pub(crate) fn snapshot_taken(&mut self, slot: usize, life: u64, index: u64, state: u64) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(process) = &mut node.process else { return Ok(()) };
        if node.life != life {
            return Ok(());
        }
        process.picturing = false;
        node.disk.take_picture(Index(index), state);
        let newest = node.disk.newest();
        self.ghost.on_durable_snapshot(slot, newest)?;
        if newest != index {
            // Another has come meanwhile, or there is nothing in it.
            return Ok(());
        }
        self.counts.bump(Count::SnapshotsTaken);
        self.see(&Seen::SnapshotTaken { slot, index })?;
        if self.faulty && self.plan.crash_every > 0 && self.snapshot_rng.chance(0.03) {
            self.crash(slot)?;
            self.plan_restart(slot);
            return Ok(());
        }
        let keep = self.snapshot_rng.pick(&[0, 0, 1, 5, 50, 1000]);
        self.feed(slot, Input::Compact { snapshot: Index(index), keep })
    }

    /// Streams a snapshot to a peer.
    pub(crate) fn send_snapshot(&mut self, slot: usize, send: SendSnapshot) -> Verdict {
        let Body::InstallSnapshot { snapshot } = &send.message.body else {
            return Err(Broken("contract", "a snapshot that isn't announced".into()));
        };
        let node = &self.nodes[slot];
        let picture = node.disk.picture(snapshot.last).cloned();
        let Some(picture) = picture else {
            return Err(Broken("P3", format!("node {} sends {snapshot:?}, but it has none there", slot + 1)));
        };
        hold!(
            picture.of == **snapshot,
            "P1",
            "node {} sends {snapshot:?}, but its disk says {:?}",
            slot + 1,
            picture.of
        );
        let to = send.to.0 as usize - 1;
        let life = node.life;
        self.sent += 1;
        let number = self.sent;
        if !self.watchers.is_empty() {
            self.see(&Seen::Sent { id: number, from: slot, to, message: &send.message })?;
        }
        let shipment = Shipment { from: slot, life, to, id: send.id, message: send.message, picture, number };
        let mut delay = 1 + self.snapshot_rng.exponential(self.plan.snapshot_mean);
        if self.faulty && self.snapshot_rng.chance(self.plan.snapshot_fails) {
            // It breaks off, now or later; or nobody hears that it came.
            self.counts.bump(Count::SnapshotsFailed);
            if self.snapshot_rng.chance(0.3) {
                let late = delay + self.snapshot_rng.exponential(2_000_000);
                self.ship(late, Event::Shipped { shipment: Box::new(shipment.clone()), tell: false });
            }
            let (life, id) = (shipment.life, shipment.id);
            self.push(delay, Event::ShippingFailed { slot, life, id });
            return Ok(());
        }
        if self.faulty && self.snapshot_rng.chance(self.plan.snapshot_fails) {
            // It comes twice.
            let late = delay + self.snapshot_rng.exponential(2_000_000);
            self.ship(late, Event::Shipped { shipment: Box::new(shipment.clone()), tell: false });
        }
        if self.faulty && self.snapshot_rng.chance(0.2) {
            delay += self.snapshot_rng.exponential(10 * self.plan.snapshot_mean);
        }
        self.ship(delay, Event::Shipped { shipment: Box::new(shipment), tell: true });
        Ok(())
    }

    fn ship(&mut self, delay: u64, event: Event) {
        if self.faulty {
            self.last_straggler = self.last_straggler.max(self.now + delay);
        }
        self.push(delay, event);
    }

    /// All of a snapshot has come: it is staged, and the core hears of it.
    pub(crate) fn shipped(&mut self, shipment: Shipment, tell: bool) -> Verdict {
        let Shipment { from, life, to, id, message, picture, number } = shipment;
        let alive = self.nodes[from].life == life && self.nodes[from].process.is_some();
        let arrives = self.nodes[to].process.is_some()
            && !self.network.is_cut(from, to)
            && (alive || !tell || self.snapshot_rng.chance(0.3));
        if arrives {
            self.nodes[to].disk.stage(picture);
            let author = NodeId(from as u64 + 1);
            self.feed_message(to, number, Input::Receive { from: author, message })?;
        } else {
            self.see(&Seen::Lost { id: number, why: "the snapshot broke off" })?;
        }
        if !tell {
            return Ok(());
        }
        if arrives {
            self.counts.bump(Count::SnapshotsArrived);
        }
        if self.nodes[from].life != life {
            return Ok(());
        }
        self.feed(from, Input::SnapshotSent { id, arrived: arrives })
    }

    pub(crate) fn shipping_failed(&mut self, slot: usize, life: u64, id: SendId) -> Verdict {
        if self.nodes[slot].life != life {
            return Ok(());
        }
        self.feed(slot, Input::SnapshotSent { id, arrived: false })
    }
}
