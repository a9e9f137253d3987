//! Whoever sleeps may: a leader by everyone's leave, a follower with all of the log; no lease rests on who sleeps; and who wakes has
//! time to find its quorum again.

use quorate_core::{Action, Body, Config, Event, Input, Instant, NodeId, Raft, Reason, RoleKind};

use super::Lab;
use crate::{
    ghost::agree,
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

/// What an input has to do with sleep.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// A peer says whether it sleeps, by that round of that term.
    Answer {
        from: NodeId,
        term: u64,
        round: u64,
        asleep: bool,
    },
    /// A leader's heartbeat, of that round of that term.
    Beat {
        term: u64,
        round: u64,
    },
    /// Touch with a peer is lost.
    Lost(NodeId),
    /// There is touch again.
    Back(NodeId),
    StepDown,
    Tick,
    /// Something that may wake somebody, by who is woken: a leader, a follower.
    Cause(Option<Count>, Option<Count>),
}

impl Word {
    pub(super) const fn of(input: &Input) -> Self {
        match input {
            Input::Receive { from, message } => match &message.body {
                Body::HeartbeatReply { round, asleep } => {
                    Self::Answer { from: *from, term: message.term.0, round: *round, asleep: *asleep }
                }
                Body::Heartbeat { round, .. } => Self::Beat { term: message.term.0, round: *round },
                Body::PreVote { .. } | Body::Vote { .. } => {
                    Self::Cause(Some(Count::WokenByMembers), Some(Count::WokenByVotes))
                }
                Body::ReadIndex { .. } => Self::Cause(Some(Count::WokenByMembers), None),
                _ => Self::Cause(None, Some(Count::WokenByLeaders)),
            },
            Input::Unreachable { peer } => Self::Lost(*peer),
            Input::Reachable { peer } => Self::Back(*peer),
            Input::StepDown => Self::StepDown,
            Input::Tick => Self::Tick,
            Input::Propose(_) => Self::Cause(Some(Count::WokenByProposals), None),
            Input::Read { .. } => Self::Cause(Some(Count::WokenByReads), Some(Count::WokenByWishes)),
            Input::ChangeMembership { .. } | Input::TransferLeadership { .. } => {
                Self::Cause(Some(Count::WokenByChanges), None)
            }
            Input::Campaign | Input::ForgetLeader => Self::Cause(None, Some(Count::WokenByWishes)),
            Input::CancelRead { .. }
            | Input::AbortTransfer
            | Input::Compact { .. }
            | Input::SnapshotSent { .. }
            | Input::Persisted(_)
            | Input::Loaded { .. }
            | Input::Applied { .. }
            | Input::StorageFailed => Self::Cause(None, None),
        }
    }

    /// How the waking of a leader, or of a follower, is counted.
    const fn count(self, leader: bool) -> Option<Count> {
        match (self, leader) {
            (Self::Cause(cause, _), true) | (Self::Cause(_, cause), false) => cause,
            (Self::Answer { .. }, true) => Some(Count::WokenByMembers),
            (Self::Back(_), true) => Some(Count::WokenByReturns),
            (Self::Lost(_), true) => Some(Count::WokenWithoutQuorum),
            (Self::Lost(_), false) => Some(Count::WokenByLosses),
            (Self::Beat { .. }, false) => Some(Count::WokenByLeaders),
            (Self::StepDown | Self::Tick, _)
            | (Self::Beat { .. }, true)
            | (Self::Answer { .. } | Self::Back(_), false) => None,
        }
    }
}

/// What a leader was told of one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    lost: bool,
    /// It sleeps by this round.
    asleep: u64,
}

/// What a process knows of sleep, by what went in and came out.
#[derive(Debug)]
pub(crate) struct Vigil {
    asleep: bool,
    /// The newest round that it has sent, and whether that asked to sleep.
    round: (u64, bool),
    peers: Vec<(NodeId, Peer)>,
    /// The latest round that it has heard, and of which term.
    heard: (u64, u64),
    /// As a leader.
    woke: Option<Instant>,
    began: Instant,
}

impl Vigil {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { asleep: false, round: (0, false), peers: Vec::new(), heard: (0, 0), woke: None, began: now }
    }

    fn peer(&mut self, id: NodeId) -> &mut Peer {
        let at = self.peers.iter().position(|(other, _)| *other == id).unwrap_or_else(|| {
            self.peers.push((id, Peer::default()));
            self.peers.len() - 1
        });
        &mut self.peers[at].1
    }

    /// After a step at `now` that was taken, with these actions.
    pub(super) fn check(
        &mut self,
        raft: &Raft,
        config: &Config,
        word: Word,
        actions: &[Action],
        now: Instant,
        counts: &mut Counts,
    ) -> Verdict {
        let n = raft.id();
        let election = config.election_timeout.as_micros() as u64;
        match word {
            Word::Answer { from, term, round, asleep }
                if term == raft.term().0 && raft.role() == RoleKind::Leader =>
            {
                let peer = self.peer(from);
                peer.lost = false;
                if asleep {
                    peer.asleep = peer.asleep.max(round);
                }
            }
            Word::Lost(id) => *self.peer(id) = Peer { lost: true, asleep: 0 },
            Word::Back(id) => self.peer(id).lost = false,
            Word::StepDown => {
                counts.bump(Count::StepDowns);
                // A transfer may outlive the leadership, and end before that.
                let due = raft.deadline().filter(|(_, reason)| *reason == Reason::Election);
                let due = due.map_or(2 * election, |(at, _)| at.0.saturating_sub(now.0));
                hold!(
                    raft.role() == RoleKind::Follower && raft.leader().is_none(),
                    "contract",
                    "node {n} was to lead no longer, but is a {:?} of {:?}",
                    raft.role(),
                    raft.leader()
                );
                hold!(
                    (2 * election..=3 * election).contains(&due),
                    "liveness",
                    "node {n} has stepped down, and waits for {due} µs to lead again"
                );
            }
            Word::Tick => {
                let leads_still = raft.role() == RoleKind::Leader;
                let early = self.woke.is_some_and(|woke| now.0 - woke.0 < election);
                hold!(
                    leads_still || !early,
                    "liveness",
                    "node {n} was woken {:?}, and gives up leading before anybody could have answered",
                    self.woke
                );
            }
            Word::Answer { .. } | Word::Beat { .. } | Word::Cause(..) => {}
        }
        for action in actions {
            match action {
                Action::Event(Event::Role { .. }) => {
                    self.peers.iter_mut().for_each(|(_, peer)| peer.asleep = 0);
                    self.woke = None;
                }
                Action::Event(Event::Stopped) => self.asleep = false,
                Action::Event(Event::Asleep) => {
                    self.asleep = true;
                    self.check_asleep(raft, counts)?;
                    if let Word::Beat { term, round } = word {
                        hold!(
                            (term, round) > self.heard,
                            "quiescence",
                            "node {n} falls asleep by round {round}, though it has heard {:?}",
                            self.heard
                        );
                    }
                }
                Action::Event(Event::Awake) => {
                    self.asleep = false;
                    let leads = raft.role() == RoleKind::Leader;
                    self.woke = leads.then_some(now);
                    if let Some(count) = word.count(leads) {
                        counts.bump(count);
                    }
                }
                Action::Send { message, .. } => {
                    if let Body::Heartbeat { round, quiesce, .. } = message.body {
                        self.round = (round, quiesce);
                    }
                }
                _ => {}
            }
        }
        if let Word::Beat { term, round } = word {
            self.heard = self.heard.max((term, round));
        }
        hold!(
            self.asleep == raft.is_asleep(),
            "contract",
            "node {n} {}, but has told its driver otherwise",
            if raft.is_asleep() { "sleeps" } else { "is awake" }
        );
        hold!(
            !raft.is_asleep() || raft.deadline().is_none(),
            "contract",
            "node {n} sleeps, and waits for {:?}",
            raft.deadline()
        );
        Ok(())
    }

    fn check_asleep(&mut self, raft: &Raft, counts: &mut Counts) -> Verdict {
        let (n, last) = (raft.id(), raft.last());
        hold!(
            last.term == raft.term() && raft.commit() == last.index && raft.durable() == last.index,
            "quiescence",
            "node {n} falls asleep at {last}, committed {}, durable {}",
            raft.commit(),
            raft.durable()
        );
        if raft.role() != RoleKind::Leader {
            counts.bump(Count::FollowersAsleep);
            return Ok(());
        }
        counts.bump(Count::LeadersAsleep);
        let (round, asked) = self.round;
        let peers: Vec<NodeId> = raft.progress().map(|peer| peer.id).collect();
        for id in peers {
            let peer = *self.peer(id);
            hold!(
                asked && (peer.lost || peer.asleep == round),
                "quiescence",
                "leader {n} falls asleep in round {round}, though node {id} has not said that it sleeps: {peer:?}"
            );
        }
        let sleeps = |slot: usize| {
            slot as u64 + 1 == n.0
                || self.peers.iter().any(|(id, peer)| id.0 == slot as u64 + 1 && peer.asleep == round)
        };
        hold!(agree(raft.membership(), sleeps), "quiescence", "leader {n} falls asleep, but no quorum does");
        Ok(())
    }
}

impl Lab {
    /// Somebody has fallen asleep, or leads: as long as a leader has a lease, so many are awake that nobody else can be elected.
    pub(super) fn check_lease(&self, slot: usize) -> Verdict {
        let config = &self.setup.config;
        if !config.lease_reads || config.quiesce_after.is_zero() {
            return Ok(());
        }
        let leader = self.nodes[slot].raft().and_then(Raft::leader).map(|id| id.0 as usize - 1);
        let Some((leader, raft)) = leader.and_then(|at| Some((at, self.nodes.get(at)?.raft()?))) else {
            return Ok(());
        };
        let election = config.election_timeout.as_micros() as u64;
        let helps = |other: usize| {
            let Some(process) = self.nodes.get(other).and_then(|node| node.process.as_ref()) else {
                return false;
            };
            // Who has just started keeps its vote back, whatever it hears.
            let settled = self.nodes[other].seen.0 - process.vigil.began.0 >= election;
            let follows = process.raft.term() == raft.term() && process.raft.leader() == raft.leader();
            process.raft.is_asleep() && follows && settled
        };
        if raft.role() != RoleKind::Leader || agree(raft.membership(), |other| !helps(other)) {
            return Ok(());
        }
        let until = raft.status().lease_until;
        hold!(
            until.is_none_or(|until| until <= self.nodes[leader].seen),
            "R2",
            "node {} has a lease until {until:?}, though so many sleep by its leave that another could be elected",
            leader + 1
        );
        Ok(())
    }
}
