//! Clients: they ask whom they take for the leader, or anyone; give up waiting, ask again, and don't always learn what came of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::{Index, Outcome, ReadKind};

use crate::{
    cast::Cast,
    lab::Answered,
    op::What,
    rng::Rng,
    stats::{Count, Counts},
    violation::{Broken, Verdict},
    workload::{Answer, Bounds, Checker, Client, Completed, History, Op, Opinion, Random, Request, Service},
    world::{Event, World},
};

/// A client asks so many times for the same.
const TRIES: u32 = 6;

/// Who asks for what, and what they know.
pub(crate) struct Clients {
    service: Service,
    random: Random,
    sessions: bool,
    all: Vec<One>,
    asked: Vec<Asked>,
    by_token: BTreeMap<u64, u32>,
    /// What is judged at the end, or by a user's checker.
    history: Option<History>,
    checker: Option<Box<dyn Checker>>,
}

/// One client.
#[derive(Default)]
struct One {
    session: Client,
    opening: bool,
    /// What waits in its session: by sequence number, which operation it is.
    waiting: BTreeMap<u64, u32>,
}

/// An operation of a client.
struct Asked {
    client: usize,
    what: Wants,
    tries: u32,
    over: bool,
    /// Its place in the history.
    place: Option<usize>,
}

enum Wants {
    Session,
    /// A command: its number in the session, 0 without one.
    Command {
        sequence: u64,
        command: Bytes,
    },
    Query {
        query: Bytes,
        kind: ReadKind,
    },
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("service", &self.service.name).finish_non_exhaustive()
    }
}

impl Clients {
    pub(crate) fn new(service: Service, sessions: bool, cast: &Cast, rng: &mut Rng) -> Self {
        let checker = cast.checker.as_ref().map(|new| new());
        let count = rng.between(2, 8) as usize;
        let history = (rng.chance(0.25) || checker.is_some()).then(History::default);
        Self {
            random: Random::new(rng.next()),
            service,
            sessions,
            all: std::iter::repeat_with(One::default).take(count).collect(),
            asked: Vec::new(),
            by_token: BTreeMap::new(),
            history,
            checker,
        }
    }

    /// The next operation of a client: a read or a command, as it is wanted, if the workload has such.
    fn draw(&mut self, client: usize, read: bool) -> Op {
        let mut op = self.service.workload.next(client, &mut self.random);
        for _ in 0..8 {
            if matches!(op, Op::Read(_)) == read {
                break;
            }
            op = self.service.workload.next(client, &mut self.random);
        }
        op
    }

    fn begin(&mut self, client: usize, what: Wants, now: u64) -> u32 {
        let history = self.history.as_mut();
        let place = history.and_then(|history| match &what {
            Wants::Session => None,
            Wants::Command { command, .. } => Some(history.invoke(client, command.clone(), true, now)),
            // What is asked as of some index, of whatever age, is no part of it.
            Wants::Query { kind: ReadKind::AtLeast(_), .. } => None,
            Wants::Query { query, .. } => Some(history.invoke(client, query.clone(), false, now)),
        });
        self.asked.push(Asked { client, what, tries: 1, over: false, place });
        self.asked.len() as u32 - 1
    }

    /// The request for an operation, as it goes into the log; none if its session is gone.
    fn request(&mut self, op: u32) -> Option<Bytes> {
        let asked = &self.asked[op as usize];
        match &asked.what {
            Wants::Session => Some(Request::Open.encode()),
            Wants::Command { command, sequence: 0 } => Some(command.clone()),
            Wants::Command { sequence, .. } => {
                let client = &self.all[asked.client];
                (client.waiting.get(sequence) == Some(&op)).then(|| client.session.again(*sequence)).flatten()
            }
            Wants::Query { .. } => None,
        }
    }

    /// An answer has come.
    fn answered(&mut self, op: u32, answered: Answered, now: u64) -> Verdict {
        let Self { asked, all, history, checker, sessions, .. } = self;
        let asked = &mut asked[op as usize];
        if asked.over {
            return Ok(());
        }
        asked.over = true;
        let mut reply = answered.reply;
        let client = &mut all[asked.client];
        if *sessions && !matches!(asked.what, Wants::Query { .. }) {
            let answer = Answer::try_from(reply).map_err(|why| Broken("X1", why))?;
            match (&asked.what, &answer) {
                (Wants::Session, Answer::Opened(session)) => {
                    *client = One::default();
                    client.session.opened(*session);
                    return Ok(());
                }
                (Wants::Command { sequence, .. }, _) => {
                    client.session.answered(*sequence, &answer);
                    client.waiting.remove(sequence);
                }
                (Wants::Session | Wants::Query { .. }, _) => {}
            }
            match answer {
                Answer::Done(done) => reply = done,
                // Whatever was asked in it may have happened or not.
                Answer::UnknownSession => {
                    *client = One::default();
                    return Ok(());
                }
                Answer::Forgotten | Answer::Opened(_) => return Ok(()),
                Answer::TooFarAhead | Answer::Malformed => {
                    return Err(Broken("X1", format!("a client's command is answered with {answer:?}")));
                }
            }
        }
        let (Some(history), Some(place)) = (history, asked.place) else { return Ok(()) };
        history.effect(place, answered.index);
        history.returned(place, reply, now);
        match (checker, history.completed().get(place)) {
            (Some(checker), Some(completed)) => {
                checker.answered(completed).map_err(|why| Broken("user", why))
            }
            _ => Ok(()),
        }
    }

    /// Is anybody still to be asked again for it?
    fn waits(&self, op: u32) -> bool {
        let asked = &self.asked[op as usize];
        !asked.over && asked.tries < TRIES
    }

    /// Nobody asks for it any more. A session with a command that nobody asks for any more is of no use.
    fn give_up(&mut self, op: u32) {
        let asked = &mut self.asked[op as usize];
        asked.over = true;
        let client = &mut self.all[asked.client];
        match asked.what {
            Wants::Session => client.opening = false,
            Wants::Command { sequence, .. } if sequence > 0 && client.waiting.contains_key(&sequence) => {
                *client = One::default();
            }
            Wants::Command { .. } | Wants::Query { .. } => {}
        }
    }

    /// The run is over: what do those say who judge all of it?
    pub(crate) fn judge(&mut self, replica: Option<&dyn crate::workload::Replica>) -> Verdict {
        let Some(history) = &self.history else { return Ok(()) };
        if let (Some(checker), Some(replica)) = (&mut self.checker, replica) {
            checker.after(history.completed(), replica).map_err(|why| Broken("user", why))?;
        }
        let Some(search) = self.service.search else { return Ok(()) };
        let bounds =
            Bounds { operations: 2_000, steps: 200_000, effects_are_known: false, ..Bounds::default() };
        match search(history.completed(), &bounds) {
            Opinion::Linearizable { .. } => Ok(()),
            Opinion::Impossible { key, op, what } => {
                let completed: Option<&Completed> = history.completed().get(op);
                Err(Broken(
                    "R1",
                    format!("no order explains what clients heard of object {key}: {what} ({completed:?})"),
                ))
            }
        }
    }
}

impl World {
    /// The next request, and when the one after it comes.
    pub(crate) fn request(&mut self) -> Verdict {
        let delay = 1 + self.client_rng.exponential(self.plan.request_every);
        self.push(delay, Event::Request);
        if self.rest.is_quiet() || self.is_idle() {
            return Ok(());
        }
        let slot = self.choose_node();
        let client = self.client_rng.index(self.clients.all.len());
        let reads = self.now < self.no_writes_before || self.client_rng.chance(self.plan.read_share);
        match self.clients.draw(client, reads) {
            Op::Read(query) => self.ask_read(slot, client, query),
            Op::Write(_) if self.now < self.no_writes_before => self.ask_read(slot, client, Bytes::new()),
            Op::Write(command) => self.ask_write(slot, client, command),
        }
    }

    /// Mostly somebody who leads: where there are two, for one of them doesn't know yet, the one as likely as the other.
    fn choose_node(&mut self) -> usize {
        let anyone = self.client_rng.index(self.hosts.len());
        if self.client_rng.chance(0.2) {
            return anyone;
        }
        let leaders = self.leaders();
        if leaders.is_empty() { anyone } else { self.client_rng.pick(&leaders) }
    }

    /// One command or several, of one client.
    fn ask_write(&mut self, slot: usize, client: usize, first: Bytes) -> Verdict {
        let mut ops = Vec::new();
        let (now, sessions) = (self.now, self.clients.sessions);
        let one = &mut self.clients.all[client];
        if sessions && one.session.session().is_none() {
            if one.opening {
                return Ok(());
            }
            one.opening = true;
            ops.push(self.clients.begin(client, Wants::Session, now));
        } else {
            let count = self.client_rng.between(1, self.plan.largest_batch);
            let mut command = first;
            for _ in 0..count {
                let mut sequence = 0;
                if sessions {
                    let Some((next, _)) = self.clients.all[client].session.send(command.clone()) else {
                        break;
                    };
                    sequence = next;
                }
                let op = self.clients.begin(client, Wants::Command { sequence, command }, now);
                if sessions {
                    self.clients.all[client].waiting.insert(sequence, op);
                }
                ops.push(op);
                match self.clients.draw(client, false) {
                    Op::Write(another) => command = another,
                    Op::Read(_) => break,
                }
            }
        }
        // Now and then only for the term in which it was asked: a leader's own decision.
        let once = self.client_rng.chance(0.05);
        self.propose(slot, ops, once)
    }

    fn propose(&mut self, slot: usize, mut ops: Vec<u32>, once: bool) -> Verdict {
        let requests: Vec<(u32, Bytes)> =
            ops.drain(..).filter_map(|op| Some((op, self.clients.request(op)?))).collect();
        if requests.is_empty() {
            return Ok(());
        }
        let pad = self.client_rng.below(self.plan.longest_command) as u32;
        // Whose term is over by the time it is taken up, perhaps.
        let late = u64::from(self.client_rng.chance(0.3));
        let term = self.raft(slot).map(quorate_core::Raft::term).filter(|_| once);
        let term = term.map(|term| quorate_core::Term(term.0.saturating_sub(late)));
        for (op, _) in &requests {
            let patience = 2 * self.plan.election();
            let delay = 1000 + self.client_rng.exponential(patience);
            self.push(delay, Event::AskAgain { op: *op });
        }
        let (ops, commands) = requests.into_iter().unzip();
        let life = self.life(slot);
        self.happen(Event::Called { slot, life, what: What::Propose { commands, term, pad }, ops })
    }

    /// A client has waited long enough: it asks again, elsewhere perhaps, or gives up.
    pub(crate) fn ask_again(&mut self, op: u32) -> Verdict {
        if self.rest.is_quiet() || self.clients.asked[op as usize].over {
            return Ok(());
        }
        let repeats =
            self.clients.sessions && !matches!(self.clients.asked[op as usize].what, Wants::Query { .. });
        if !repeats || !self.clients.waits(op) {
            self.clients.give_up(op);
            return Ok(());
        }
        self.lab.counts.bump(Count::Retries);
        self.clients.asked[op as usize].tries += 1;
        let slot = self.choose_node();
        self.propose(slot, vec![op], false)
    }

    fn ask_read(&mut self, slot: usize, client: usize, query: Bytes) -> Verdict {
        let kind = match self.client_rng.below(10) {
            // What somebody has seen: on any node, of any age.
            0 => {
                if self.client_rng.chance(0.1) {
                    self.ask(slot, What::CancelRead)?;
                }
                ReadKind::AtLeast(Index(self.client_rng.below(self.lab.ghost.committed() + 2)))
            }
            1..=6 if self.plan.setup.config.lease_reads => ReadKind::Lease,
            _ => ReadKind::Linearizable,
        };
        let op = self.clients.begin(client, Wants::Query { query: query.clone(), kind }, self.now);
        let life = self.life(slot);
        let what = What::Read { kind, query: Some(query) };
        self.happen(Event::Called { slot, life, what, ops: vec![op] })
    }

    /// The node has taken a request up, or refused it: the clients' names for what is in it are known by its own from now on.
    pub(crate) fn note_tokens(&mut self, asked: Option<(u64, u64)>, refused: bool, ops: &[u32]) {
        let Some((first, _)) = asked else { return };
        if refused {
            ops.iter().for_each(|op| self.refused(*op));
        } else {
            self.clients.by_token.extend((first..).zip(ops.iter().copied()));
        }
    }

    /// It has not happened: whoever wants it asks again soon.
    fn refused(&mut self, op: u32) {
        let asked = &mut self.clients.asked[op as usize];
        let again =
            matches!(asked.what, Wants::Command { sequence: 0, .. }) && !asked.over && asked.tries < TRIES;
        if again && self.client_rng.chance(0.3) {
            asked.tries += 1;
            let delay = 1000 + self.client_rng.exponential(self.plan.election());
            self.push(delay, Event::Repeat { op });
        }
    }

    /// What is known not to have happened is asked for once more.
    pub(crate) fn repeat(&mut self, op: u32) -> Verdict {
        if self.rest.is_quiet() || self.clients.asked[op as usize].over {
            return Ok(());
        }
        let slot = self.choose_node();
        self.propose(slot, vec![op], false)
    }

    /// What nodes have said to clients.
    pub(crate) fn hear(&mut self) -> Verdict {
        let outcome = &mut self.lab.outcome;
        if outcome.answered.is_empty() && outcome.resolved.is_empty() {
            return Ok(());
        }
        let answered = std::mem::take(&mut outcome.answered);
        let resolved = std::mem::take(&mut outcome.resolved);
        for answer in answered {
            if let Some(op) = self.clients.by_token.remove(&answer.token) {
                self.clients.answered(op, answer, self.now)?;
            }
        }
        for (tokens, how) in resolved {
            for token in tokens.iter() {
                let Some(op) = self.clients.by_token.remove(&token.0) else { continue };
                if let Outcome::Refused { .. } = how {
                    self.refused(op);
                }
            }
        }
        Ok(())
    }
}

/// The least that a whole run commits.
pub(crate) const LEAST_COMMITS: u64 = 200;

/// The fewest leaders that go in a run with faults.
pub(crate) const LEAST_LEADER_CHANGES: u64 = 3;

/// The least that a run with faults must have met, or it proves little.
pub(crate) fn reached_enough(counts: &Counts, calm: bool) -> Result<(), String> {
    let least = [
        (Count::Commits, LEAST_COMMITS),
        (Count::LeaderChanges, if calm { 0 } else { LEAST_LEADER_CHANGES }),
    ];
    for (count, least) in least {
        if counts[count] < least {
            return Err(format!("only {} {}, but {least} are the least", counts[count], count.name()));
        }
    }
    Ok(())
}
