//! Three nodes, driven by a plain thread each, with channels of the standard library: no tokio, no async, no disk.
//!
//!     cargo run --example plain_thread -p quorate-core
//!
//! All that a driver owes the core is here: hand in what happens with the time at which it was taken up, do what comes
//! out, and call again at the deadline. Here a "disk" is a `Vec`, durable the moment that it is pushed to; with a real
//! one a second thread would sync it and send the receipts back as inputs.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a driver is where time and threads come from"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant as Clock},
};

use quorate_core::{
    Action, Config, EntryKind, Event, Incarnation, Input, Instant, Loaded, Membership, NodeId, Outcome,
    Proposal, Raft, Recovered, Run, StartError, Token,
};

/// What a node's thread is sent: a message or a request, or `None`: enough.
type Mail = Option<Input>;

/// What the nodes tell the main thread.
enum News {
    Leads(NodeId),
    Applied(NodeId, String),
    /// A request has ended, otherwise than by being applied.
    Ended(Token, Outcome),
}

struct Node {
    raft: Raft,
    inbox: Receiver<Mail>,
    peers: BTreeMap<NodeId, Sender<Mail>>,
    news: Sender<News>,
    log: Vec<Run>,
    started: Clock,
}

impl Node {
    /// The driver's loop: wait for mail or for the deadline, step, do what comes out.
    fn run(mut self) {
        loop {
            let deadline = self.raft.deadline().map_or(u64::MAX, |(at, _reason)| at.0);
            let wait = Duration::from_micros(deadline.saturating_sub(self.now().0));
            match self.inbox.recv_timeout(wait) {
                Ok(Some(input)) => self.step(input),
                // Only now that the inbox is empty: a late heartbeat must not lose to a timer.
                Err(RecvTimeoutError::Timeout) => self.step(Input::Tick),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Time, as the core wants it: µs since whenever, sampled after the input was received.
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn step(&mut self, input: Input) {
        // What is refused has changed nothing. A proposal on a follower would be: the main thread asks the leader.
        if let Err(rejected) = self.raft.step(self.now(), input) {
            eprintln!("node {}: {rejected}", self.raft.id());
        }
        while let Some(action) = self.raft.poll() {
            match action {
                Action::Send { to, message } => {
                    let from = self.raft.id();
                    // A node that is gone gets no mail; the network may lose anything anyway.
                    let _lost = self.peers[&to].send(Some(Input::Receive { from, message }));
                }
                Action::Write(write) => {
                    // Term and vote would go to disk with the entries, in one transaction.
                    if let Some(from) = write.truncate {
                        self.log = self.log.iter().filter_map(|run| run.ending_before(from)).collect();
                    }
                    self.log.extend(write.entries.iter().cloned());
                    self.step(Input::Persisted(write.into_receipt()));
                }
                Action::Apply(apply) => {
                    for entry in apply.entries.iter().flat_map(Run::entries) {
                        if entry.kind == EntryKind::Command {
                            let command = String::from_utf8_lossy(&entry.payload).into_owned();
                            self.tell(News::Applied(self.raft.id(), command));
                        }
                    }
                    self.step(Input::Applied { up_to: apply.last() });
                }
                Action::Load(load) => {
                    // An answer may be short: one run will do.
                    let end = load.last.next();
                    let run = self.log.iter().find_map(|run| run.starting_at(load.first)?.ending_before(end));
                    let result = Loaded::Entries(run.into_iter().collect());
                    self.step(Input::Loaded { id: load.id, result });
                }
                Action::Resolve { tokens, outcome } => {
                    tokens.iter().for_each(|token| self.tell(News::Ended(token, outcome)));
                }
                Action::Event(Event::Leader { leader, .. }) if leader == Some(self.raft.id()) => {
                    self.tell(News::Leads(self.raft.id()));
                }
                // Nobody ever says `Input::Compact` here, so there are no snapshots.
                Action::Restore(_) | Action::SendSnapshot(_) | Action::Event(_) => {}
            }
        }
    }

    fn tell(&self, news: News) {
        let _nobody_listens = self.news.send(news);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let ids = [1, 2, 3].map(NodeId);
    let (news, telegraph) = channel();
    let channels = ids.map(|id| (id, channel()));
    let peers: BTreeMap<_, Sender<Mail>> =
        channels.iter().map(|(id, (mail, _))| (*id, mail.clone())).collect();
    let started = Clock::now();
    let start = |(id, (_, inbox))| -> Result<_, StartError> {
        let config = Config { election_timeout: Duration::from_millis(300), ..Config::new(id) };
        let recovered = Recovered::fresh(Incarnation(1), Membership::of_voters(ids));
        let raft = Raft::new(config, recovered, Instant(0))?;
        let (peers, news, log) = (peers.clone(), news.clone(), Vec::new());
        Ok(thread::spawn(move || Node { raft, inbox, peers, news, log, started }.run()))
    };
    let threads = channels.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;

    // Two commands and a read for whoever leads, and for its successor, should it lose office meanwhile.
    let (mut applied, mut read) = (BTreeMap::from(ids.map(|id| (id, 0))), false);
    while !read || applied.values().any(|count| *count < 2) {
        match telegraph.recv_timeout(Duration::from_secs(30))? {
            News::Leads(leader) => {
                println!("node {leader} leads");
                for (token, command) in [(1, "hello"), (2, "world")] {
                    let proposal = Proposal::one(Token(token), command.as_bytes());
                    peers[&leader].send(Some(Input::Propose(proposal)))?;
                }
                peers[&leader].send(Some(Input::read(Token(3))))?;
            }
            News::Applied(node, command) => {
                println!("node {node} applies {command:?}");
                applied.entry(node).and_modify(|count| *count += 1);
            }
            News::Ended(token, outcome) => {
                println!("request {token} ended: {outcome:?}");
                read |= matches!(outcome, Outcome::Read { .. });
            }
        }
    }
    peers.values().try_for_each(|peer| peer.send(None))?;
    threads.into_iter().for_each(|thread| thread.join().expect("no node panics"));
    Ok(())
}
