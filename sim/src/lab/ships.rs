//! Snapshots: a driver takes them, sends them beside the core, and stages what comes.

use quorate_core::{Body, Index, Input, Instant, Message, NodeId, SendId, SendSnapshot};

use super::Lab;
use crate::{
    disk::Picture,
    op::Kind,
    stats::Count,
    violation::{Broken, Verdict, hold},
    watch::Seen,
};

/// A snapshot that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Shipment {
    /// Which process sends it.
    pub(crate) life: u64,
    /// The announcement's number.
    pub(crate) number: u64,
    id: SendId,
    message: Message,
    picture: Picture,
}

impl Lab {
    /// What the state machine holds now is to become a snapshot.
    pub(super) fn take_snapshot(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        if let (Some(process), Some(machine)) = (&mut node.process, &node.machine) {
            let (index, state) = process.machine;
            process.picture = Some((index, state, machine.snapshot()));
        }
        Ok(())
    }

    /// It is durable now: the core may let its log begin later.
    pub(super) fn snapshot_durable(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some((index, state, body)) = node.process.as_mut().and_then(|process| process.picture.take())
        else {
            return Ok(());
        };
        node.disk.take_picture(Index(index), state, body);
        let newest = node.disk.newest();
        self.ghost.on_durable_snapshot(slot, newest)?;
        // Else another has come meanwhile, or there is nothing in it.
        if newest == index {
            self.counts.bump(Count::SnapshotsTaken);
            self.see(&Seen::SnapshotTaken { slot, index })?;
            self.outcome.snapshot = Some(index);
        }
        Ok(())
    }

    /// A snapshot is to go to a peer.
    pub(super) fn send_snapshot(&mut self, slot: usize, send: SendSnapshot) -> Verdict {
        let Body::InstallSnapshot { snapshot } = &send.message.body else {
            return Err(Broken("contract", "a snapshot that isn't announced".into()));
        };
        let node = &self.nodes[slot];
        let Some(picture) = node.disk.picture(snapshot.last).cloned() else {
            return Err(Broken("P3", format!("node {} sends {snapshot:?}, but it has none there", slot + 1)));
        };
        hold!(
            picture.of == **snapshot,
            "P1",
            "node {} sends {snapshot:?}, but its disk says {:?}",
            slot + 1,
            picture.of
        );
        let (to, life) = (send.to.0 as usize - 1, node.life);
        let (number, nth) = (self.number(), self.count_sent(slot, to, Kind::InstallSnapshot));
        if !self.watchers.is_empty() {
            self.see(&Seen::Sent { id: number, from: slot, to, message: &send.message })?;
        }
        let shipment = Shipment { life, number, id: send.id, message: send.message, picture };
        self.ships.insert((slot, to, nth), shipment);
        self.outcome.ships.push((to, nth));
        Ok(())
    }

    pub(crate) fn shipment(&self, from: usize, to: usize, nth: u32) -> Option<&Shipment> {
        self.ships.get(&(from, to, nth))
    }

    /// All of a snapshot has come: it is staged, and the core hears of it.
    pub(super) fn ship(&mut self, slot: usize, now: Instant, from: usize, nth: u32) -> Verdict {
        let Some(shipment) = self.ships.get(&(from, slot, nth)).cloned() else {
            return Ok(());
        };
        self.nodes[slot].disk.stage(shipment.picture);
        let from = NodeId(from as u64 + 1);
        self.step(slot, now, shipment.number, Input::Receive { from, message: shipment.message })
    }

    /// Its sender hears what became of it; another life of it hears nothing.
    pub(super) fn shipped(
        &mut self,
        slot: usize,
        now: Instant,
        to: usize,
        nth: u32,
        arrived: bool,
    ) -> Verdict {
        let life = self.nodes[slot].life;
        let Some(id) = self.ships.get(&(slot, to, nth)).filter(|ship| ship.life == life).map(|ship| ship.id)
        else {
            return Ok(());
        };
        if arrived {
            self.counts.bump(Count::SnapshotsArrived);
        }
        self.step(slot, now, 0, Input::SnapshotSent { id, arrived })
    }
}
