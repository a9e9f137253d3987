//! Groups with nothing to do: a process may host ten thousand, and each leader still says that it lives.

use anyhow::{Result, ensure};
use quorate_core::{
    Action, Config, GroupId, Incarnation, Input, Instant, Membership, Message, NodeId, Raft, Recovered,
    RoleKind, Term,
};

use super::NODES;

/// Groups of three nodes, all in one process.
#[derive(Debug)]
pub struct Groups {
    groups: Vec<Group>,
    wire: Vec<(NodeId, NodeId, Message)>,
    now: Instant,
    /// Heartbeats in an election timeout, and the time between them.
    beats: u32,
    interval: u64,
}

/// Node 1 leads.
#[derive(Debug)]
struct Group([Raft; NODES]);

impl Groups {
    /// So many groups, each with its leader elected.
    ///
    /// # Errors
    /// If one of them elects nobody.
    pub fn new(count: usize) -> Result<Self> {
        let config = Config::new(NodeId(1));
        let interval = config.heartbeat_interval.as_micros() as u64;
        let beats = config.election_timeout.as_micros() as u64 / interval;
        let mut groups =
            Self { groups: Vec::new(), wire: Vec::new(), now: Instant(0), beats: beats as u32, interval };
        groups.groups.reserve_exact(count);
        for number in 0..count {
            groups.groups.push(Group::new(GroupId(number as u64))?);
        }
        // Every node 1 would campaign by then.
        groups.now = Instant(2 * config.election_timeout.as_micros() as u64);
        groups.beat()?;
        ensure!(groups.leaders_stay(), "the first node of a group was not elected");
        // What an election leaves in the queues is gone after the first beats.
        groups.idle_workload(1)?;
        Ok(groups)
    }

    /// Lets all of them live for so many election timeouts.
    ///
    /// # Errors
    /// If a node refuses something.
    #[inline(never)]
    pub fn idle_workload(&mut self, timeouts: u32) -> Result<()> {
        for _ in 0..timeouts * self.beats {
            self.now = self.now.plus(self.interval);
            self.beat()?;
        }
        Ok(())
    }

    /// Does the first node of every group lead, in the term of its first election?
    #[must_use]
    pub fn leaders_stay(&self) -> bool {
        let leads = |leader: &Raft| leader.role() == RoleKind::Leader && leader.term() == Term(1);
        self.groups.iter().all(|Group([leader, ..])| leads(leader))
    }

    fn beat(&mut self) -> Result<()> {
        let Self { groups, wire, now, .. } = self;
        for group in groups {
            group.step(wire, *now, NodeId(1), Input::Tick)?;
            while let Some((from, to, message)) = wire.pop() {
                group.step(wire, *now, to, Input::Receive { from, message })?;
            }
        }
        Ok(())
    }
}

impl Group {
    fn new(group: GroupId) -> Result<Self> {
        let ids = [1, 2, 3].map(NodeId);
        let start = |id: NodeId| -> Result<Raft> {
            let config = Config { group, ..Config::new(id) };
            let recovered = Recovered::fresh(Incarnation(1), Membership::of_voters(ids));
            Ok(Raft::new(config, recovered, Instant(0))?)
        };
        Ok(Self([start(ids[0])?, start(ids[1])?, start(ids[2])?]))
    }

    fn step(
        &mut self,
        wire: &mut Vec<(NodeId, NodeId, Message)>,
        now: Instant,
        at: NodeId,
        input: Input,
    ) -> Result<()> {
        let raft = &mut self.0[at.0 as usize - 1];
        raft.step(now, input)?;
        while let Some(action) = raft.poll() {
            match action {
                Action::Send { to, message } => wire.push((at, to, message)),
                Action::Write(write) => raft.step(now, Input::Persisted(write.into_receipt()))?,
                Action::Apply(apply) => raft.step(now, Input::Applied { up_to: apply.last() })?,
                // Nothing is proposed or read here. News of roles may be ignored.
                _ => {}
            }
        }
        Ok(())
    }
}
