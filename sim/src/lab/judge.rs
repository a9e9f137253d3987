//! State machines on every node, held against one that follows the committed log: equal at equal index, every answer as it gives
//! it (S6, P1), every command of a session once (X1), and every query as of the index that it was served at (R1).

use bytes::Bytes;
use quorate_core::{Entry, EntryKind, Run};

use super::{Lab, TAG};
use crate::{
    node::Process,
    violation::{Broken, Verdict, hold},
    workload::{Anomaly, Replica, Service, SessionOracle, State, Witness},
};

/// So many entries back, queries can be looked at.
const WINDOW: usize = 4096;

/// What follows the log beside the nodes.
pub(crate) struct Judge {
    service: Service,
    sessions: bool,
    witness: Witness,
    oracle: Option<SessionOracle>,
    /// The state after each entry from 0 on, as a digest.
    digests: Vec<u64>,
}

/// A query that waits for the state machine.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) token: u64,
    pub(crate) index: u64,
    pub(crate) query: Bytes,
}

/// Somebody is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) token: u64,
    /// Where a command took effect, or as of which entry a query is answered.
    pub(crate) index: u64,
    pub(crate) reply: Bytes,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("service", &self.service.name).finish_non_exhaustive()
    }
}

impl Judge {
    pub(super) fn new(service: Service, sessions: bool) -> Self {
        let machines = if sessions { &service.with_sessions } else { &service.plain };
        let witness = Witness::new(machines, WINDOW);
        let oracle = sessions.then(|| SessionOracle::new((service.plain)(), Service::SESSIONS));
        let digests = vec![witness.digest()];
        Self { service, sessions, witness, oracle, digests }
    }

    /// The machine of a node that has applied nothing.
    pub(super) fn machine(&self) -> Box<dyn Replica> {
        if self.sessions { (self.service.with_sessions)() } else { (self.service.plain)() }
    }

    pub(super) fn follow_all(&mut self, runs: &[Run]) -> Verdict {
        runs.iter().try_for_each(|run| self.follow(run))
    }

    /// Entries are handed to a state machine: committed, therefore, and those that came first among all nodes are followed.
    fn follow(&mut self, run: &Run) -> Verdict {
        for entry in run.entries() {
            let index = entry.id.index.0;
            if index < self.digests.len() as u64 {
                continue;
            }
            let entry = stripped(entry);
            self.witness.commit(&entry).map_err(broken)?;
            self.digests.push(self.witness.digest());
            if entry.kind == EntryKind::Command
                && let Some(oracle) = &mut self.oracle
            {
                let expected = Bytes::from(oracle.expect(&entry));
                let right = self.witness.check_reply(index, &expected);
                hold!(
                    right.is_ok(),
                    "X1",
                    "a machine with sessions, which has applied all of the log, answers entry {index} wrongly: {right:?}"
                );
            }
        }
        Ok(())
    }
}

impl Lab {
    /// A node's machine applies them. Whoever proposed one of them here is answered.
    pub(super) fn apply_runs(
        &mut self,
        slot: usize,
        runs: &[Run],
        token_of: impl Fn(u64) -> Option<u64>,
    ) -> Verdict {
        let node = &mut self.nodes[slot];
        let machine = node.machine.get_or_insert_with(|| self.judge.machine());
        let mut last = 0;
        for entry in runs.iter().flat_map(Run::entries) {
            last = entry.id.index.0;
            if entry.kind == EntryKind::Membership
                && let Ok(membership) = quorate_core::Membership::decode(&entry.payload)
            {
                machine.membership(entry.id, &membership);
            }
            if entry.kind != EntryKind::Command {
                continue;
            }
            let reply = machine.apply(&stripped(entry));
            self.judge.witness.check_reply(last, &reply).map_err(broken)?;
            if let Some(token) = token_of(last) {
                self.outcome.answered.push(Answered { token, index: last, reply });
            }
        }
        self.check_digest(slot, last, "S6")
    }

    /// A node's machine becomes what a snapshot says.
    pub(super) fn restore_machine(&mut self, slot: usize, index: u64, body: Option<State>) -> Verdict {
        let node = &mut self.nodes[slot];
        let machine = node.machine.insert(self.judge.machine());
        if index > 0 {
            let restored =
                body.map_or_else(|| Err("there is none".to_owned()), |body| machine.restore(&body));
            hold!(
                restored.is_ok(),
                "P1",
                "node {} can't restore the snapshot at {index}: {restored:?}",
                slot + 1
            );
        }
        self.check_digest(slot, index, "P1")
    }

    fn check_digest(&self, slot: usize, index: u64, invariant: &'static str) -> Verdict {
        let expected = self.judge.digests.get(index as usize).copied();
        let found = self.nodes[slot].machine.as_ref().map(|machine| machine.digest());
        if expected != found {
            let what = format!("the state machine of node {} is not as it must be at {index}", slot + 1);
            return Err(Broken(invariant, what));
        }
        Ok(())
    }

    /// Queries that waited for what is applied now are answered, from the state as it is.
    pub(super) fn answer_queries(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let (Some(process), Some(machine)) = (&mut node.process, &node.machine) else { return Ok(()) };
        let Process { machine: (applied, _), queries, .. } = process;
        let mut ready = Vec::new();
        queries.retain_mut(|query| {
            let due = query.index <= *applied;
            if due {
                ready.push((query.token, std::mem::take(&mut query.query)));
            }
            !due
        });
        for (token, query) in ready {
            let reply = machine.read(&query);
            self.judge.witness.check_read(*applied, &query, &reply).map_err(broken)?;
            self.outcome.answered.push(Answered { token, index: *applied, reply });
        }
        Ok(())
    }

    /// Whatever waits to be looked at is looked at.
    pub(crate) fn finish(&mut self) -> Verdict {
        self.judge.witness.finish().map_err(broken)
    }
}

/// The entry as the machine sees it: without the token in front.
fn stripped(mut entry: Entry) -> Entry {
    if entry.kind == EntryKind::Command
        && let Some(pad) = entry.payload.get(8..TAG).and_then(|pad| pad.first_chunk::<4>())
    {
        let from = (TAG + u32::from_le_bytes(*pad) as usize).min(entry.payload.len());
        entry.payload = entry.payload.slice(from..);
    }
    entry
}

#[expect(clippy::needless_pass_by_value, reason = "serves as the end of a `map_err`")]
fn broken(anomaly: Anomaly) -> Broken {
    let invariant = match anomaly {
        Anomaly::Reply { .. } | Anomaly::Gap { .. } | Anomaly::Lost { .. } => "S6",
        Anomaly::Read { .. } | Anomaly::Order { .. } => "R1",
    };
    Broken(invariant, anomaly.to_string())
}
