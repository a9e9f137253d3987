//! Online comparison of replicas: those that should be the same say what their states hash to, and whoever finds two that
//! differ raises an alarm.
//!
//! Every replica hashes its state after each entry whose index is a multiple of the same N ([`Stride`]), and tells all
//! the others ([`Report`]); so nothing depends on who leads, and each of them can raise the alarm. A report repeats the
//! last few hashes: one that is lost does no harm, and the first index that differs is found although it came with the next.
//!
//! | who | does |
//! | --- | --- |
//! | the apply lane | stops at [`Stride::next`], asks for `state_hash`, hands it on |
//! | [`Online`] | [`Comparison::own`], then sends [`Comparison::to_send`] to each other member: one at a time to each |
//! | whoever takes a forwarded request that [`Report::is_one`] | [`Online::take`] |
//!
//! What it can't find: replicas that differ in what they don't hash; and a difference that came in a snapshot which all have
//! been restored from.

mod online;
#[cfg(test)]
mod tests;
mod wire;

use std::{collections::BTreeMap, fmt, num::NonZeroU64};

use quorate_core::{Incarnation, Index, NodeId};

pub(crate) use online::Online;
pub(crate) use wire::{Report, accepted};

/// So many hashes of each replica are kept to be compared: one that lags by more is not compared.
const KEPT: usize = 256;

/// So many of them go with each report.
const REPEATED: usize = 16;

/// Where replicas hash their states: at multiples of N.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stride(NonZeroU64);

impl Stride {
    /// Every `every` entries.
    pub(crate) const fn new(every: NonZeroU64) -> Self {
        Self(every)
    }

    /// The first such index at `from` or after: where apply has to stop for a hash.
    pub(crate) const fn next(self, from: Index) -> Index {
        let rest = from.0 % self.0.get();
        if rest == 0 { from } else { from.plus(self.0.get() - rest) }
    }
}

/// From what a replica's state has come: hashes of two origins have nothing to do with each other. A later one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Origin {
    /// In which of its lives.
    pub(crate) incarnation: Incarnation,
    /// Where the snapshot stands that it was restored from; 0 for none.
    pub(crate) restored: Index,
}

/// Two replicas have applied the same entries, and are not the same: see
/// [`Builder::compare_state_every`](crate::Builder::compare_state_every).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The replica that differs from this one.
    pub node: NodeId,
    /// The last index at which the two are known to have been the same; 0 if none is. The entry that led to the difference
    /// is after this one, if the two began the same.
    pub last_equal: Index,
    /// The first index at which they are known to differ: the entry is this one or before it.
    pub first_different: Index,
    /// What this replica's state hashed to there.
    pub ours: u64,
    /// What the other's did.
    pub theirs: u64,
    /// Those that differ there from what more than half of the members agree on, as far as they have said. None before
    /// it is known what the majority has, or if there is none.
    pub minority: Vec<NodeId>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, last_equal, first_different, ours, theirs, minority } = self;
        write!(
            f,
            "the state differs from node {node}'s since some entry after {last_equal} and up to {first_different} \
             ({ours:016x} here, {theirs:016x} there)"
        )?;
        match minority.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; node {one} is alone with it"),
            several => write!(f, "; nodes {several:?} differ from the majority"),
        }
    }
}

/// What one replica knows of itself and the others. It costs what it is given: some compares for each hash.
#[derive(Debug)]
pub(crate) struct Comparison {
    me: NodeId,
    own: Replica,
    peers: BTreeMap<NodeId, Replica>,
    /// One for each peer at most, from when it was found until the node ends.
    divergences: Vec<Divergence>,
}

#[derive(Default, Debug)]
struct Replica {
    origin: Origin,
    /// Its last hashes, by index.
    hashes: BTreeMap<Index, u64>,
    /// Of a peer: where it was last found to be as we are.
    equal: Index,
    /// Of a peer: the alarm was raised.
    alarmed: bool,
}

impl Comparison {
    /// For replica `me`, of which the newest state comes from `origin`; `members` are all that should be the same.
    pub(crate) fn new(me: NodeId, origin: Origin, members: impl IntoIterator<Item = NodeId>) -> Self {
        let own = Replica { origin, ..Replica::default() };
        let mut comparison = Self { me, own, peers: BTreeMap::new(), divergences: Vec::new() };
        comparison.members(members);
        comparison
    }

    /// These are the members now: what others say is not listened to.
    pub(crate) fn members(&mut self, members: impl IntoIterator<Item = NodeId>) {
        let mut before = std::mem::take(&mut self.peers);
        let others = members.into_iter().filter(|id| *id != self.me);
        self.peers = others.map(|id| (id, before.remove(&id).unwrap_or_default())).collect();
    }

    /// This replica was restored from a snapshot: it starts anew, and may diverge anew.
    pub(crate) fn restored(&mut self, to: Index) {
        let origin = Origin { restored: to, ..self.own.origin };
        self.own = Replica { origin, ..Replica::default() };
        for peer in self.peers.values_mut() {
            (peer.equal, peer.alarmed) = (Index(0), false);
        }
    }

    /// The state here hashes to `hash` after the entry at `index`. Returns the divergences that are found by that.
    pub(crate) fn own(&mut self, index: Index, hash: u64) -> Vec<Divergence> {
        self.own.keep(index, hash);
        let peers: Vec<_> = self.peers.keys().copied().collect();
        let found: Vec<_> = peers.into_iter().filter_map(|peer| self.compare(peer, index)).collect();
        self.judge();
        found.into_iter().map(|at| self.divergences[at].clone()).collect()
    }

    /// What this replica tells all the others, after [`Comparison::own`].
    pub(crate) fn to_send(&self) -> Report {
        let skip = self.own.hashes.len().saturating_sub(REPEATED);
        let hashes = self.own.hashes.iter().skip(skip).map(|(index, hash)| (*index, *hash)).collect();
        Report { origin: self.own.origin, hashes }
    }

    /// What another replica tells. Returns the divergence that is found by that: once for each, and not again before one of
    /// the two has started anew.
    pub(crate) fn report(&mut self, node: NodeId, report: &Report) -> Option<Divergence> {
        let peer = self.peers.get_mut(&node)?;
        if report.origin < peer.origin {
            // Delayed, from before it started anew.
            return None;
        }
        if report.origin > peer.origin {
            *peer = Replica { origin: report.origin, ..Replica::default() };
        }
        let mut found = None;
        for (index, hash) in &report.hashes {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.keep(*index, *hash);
            }
            found = found.or(self.compare(node, *index));
        }
        // What a third one says may tell who of two is wrong.
        self.judge();
        found.map(|at| self.divergences[at].clone())
    }

    /// All that were found since this node has started, with what is known of them by now.
    pub(crate) fn divergences(&self) -> &[Divergence] {
        &self.divergences
    }

    /// Where the divergence is that is found by comparing with `node` at `index`.
    fn compare(&mut self, node: NodeId, index: Index) -> Option<usize> {
        let ours = *self.own.hashes.get(&index)?;
        let peer = self.peers.get_mut(&node)?;
        let theirs = *peer.hashes.get(&index)?;
        if ours == theirs {
            peer.equal = peer.equal.max(index);
            return None;
        }
        if std::mem::replace(&mut peer.alarmed, true) {
            return None;
        }
        let last_equal = if peer.equal < index { peer.equal } else { Index(0) };
        let divergence =
            Divergence { node, last_equal, first_different: index, ours, theirs, minority: Vec::new() };
        self.divergences.retain(|before| before.node != node);
        self.divergences.push(divergence);
        Some(self.divergences.len() - 1)
    }

    /// Says who is in the minority, where that isn't known yet.
    fn judge(&mut self) {
        let Self { me, peers, divergences, own: _ } = self;
        for divergence in divergences.iter_mut().filter(|divergence| divergence.minority.is_empty()) {
            let at = divergence.first_different;
            // What the two had there is known even when it is not kept any more.
            let mut said = BTreeMap::from([(*me, divergence.ours)]);
            said.extend(peers.iter().filter_map(|(id, peer)| Some((*id, *peer.hashes.get(&at)?))));
            said.insert(divergence.node, divergence.theirs);
            let members = peers.len() + 1;
            let holders = |hash: u64| said.values().filter(|said| **said == hash).count();
            let majority = said.values().copied().find(|hash| holders(*hash) * 2 > members);
            if let Some(majority) = majority {
                let others = said.iter().filter(|(_, hash)| **hash != majority);
                divergence.minority = others.map(|(id, _)| *id).collect();
            }
        }
    }
}

impl Replica {
    fn keep(&mut self, index: Index, hash: u64) {
        self.hashes.insert(index, hash);
        while self.hashes.len() > KEPT {
            self.hashes.pop_first();
        }
    }
}
