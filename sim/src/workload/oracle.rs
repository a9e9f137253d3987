//! What sessions must answer, worked out in the slow and obvious way (X1).

use std::collections::BTreeMap;

use quorate_core::Entry;

use super::{
    machine::Replica,
    request::{Answer, Request},
    table::AHEAD,
};

/// Follows the committed log beside the nodes, and says what each entry must be answered with. It shares nothing with
/// [`Sessions`](super::Sessions) but the layout of requests: it remembers every answer of a session as long as that is
/// open, and looks through all of them for the one to expire.
#[derive(Debug)]
pub struct SessionOracle {
    machine: Box<dyn Replica>,
    limit: usize,
    /// Name, last use, acknowledged.
    sessions: Vec<(u64, u64, u64)>,
    answered: BTreeMap<(u64, u64), Answer>,
}

impl SessionOracle {
    /// For sessions with this limit around such a machine.
    #[must_use]
    pub fn new(machine: Box<dyn Replica>, limit: u32) -> Self {
        let limit = limit.max(1) as usize;
        Self { machine, limit, sessions: Vec::new(), answered: BTreeMap::new() }
    }

    /// What the next entry of the log must be answered with.
    pub fn expect(&mut self, entry: &Entry) -> Answer {
        let index = entry.id.index.0;
        let (name, sequence, acknowledged, command) = match Request::decode(&entry.payload) {
            None => return Answer::Malformed,
            Some(Request::Open) => {
                if self.sessions.len() == self.limit {
                    self.expire();
                }
                self.sessions.push((index, index, 0));
                return Answer::Opened(index);
            }
            Some(Request::Command { session, sequence, acknowledged, command }) => {
                (session, sequence, acknowledged, command)
            }
        };
        let Some(session) = self.sessions.iter_mut().find(|session| session.0 == name) else {
            return Answer::UnknownSession;
        };
        session.1 = index;
        session.2 = session.2.max(acknowledged);
        if sequence <= session.2 {
            return Answer::Forgotten;
        }
        if sequence - session.2 > AHEAD {
            return Answer::TooFarAhead;
        }
        let machine = &mut self.machine;
        let answer = self.answered.entry((name, sequence)).or_insert_with(|| {
            let entry = Entry { payload: command, ..*entry };
            Answer::Done(machine.apply(&entry))
        });
        answer.clone()
    }

    /// The machine as it must be.
    #[must_use]
    pub fn machine(&self) -> &dyn Replica {
        &*self.machine
    }

    fn expire(&mut self) {
        let oldest = self.sessions.iter().enumerate().min_by_key(|(_, (_, used, _))| *used);
        if let Some(at) = oldest.map(|(at, _)| at) {
            let (name, ..) = self.sessions.remove(at);
            self.answered.retain(|(session, _), _| *session != name);
        }
    }
}
