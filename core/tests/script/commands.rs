//! The commands.
//!
//! | command | what it does |
//! | --- | --- |
//! | `nodes N [setting=…]` | starts nodes 1 to N; settings as in [`configure`], and those of `start` |
//! | `start ID [setting=…]` | starts one node (again): `voters=1,2` `learners=3` (what it takes for the membership), `term=` `vote=` `log=1*3,4*2` (terms and how many entries) `base=5@2` `applied=` |
//! | `quietly COMMAND` | does it and says nothing |
//! | `elect ID` | whoever leads is forgotten by time; the node campaigns, and everything is delivered |
//! | `propose ID x y …`, `propose ID count=9 size=100`, `… in-term=T` | one batch of commands |
//! | `read ID [linearizable\|lease\|at-least=N]` | |
//! | `change ID [add=4 learner=4 join=4 promote=4 demote=3 remove=3 …] [implicit\|explicit]`, `leave ID` | |
//! | `transfer ID [to=2]`, `abort-transfer ID`, `step-down ID` | |
//! | `campaign ID`, `forget-leader ID`, `unreachable ID PEER`, `reachable ID PEER`, `storage-fails ID` | |
//! | `compact ID [keep=N]` | a snapshot of all that is applied is durable; with `at=N`, one at `N` is said to be |
//! | `snapshot ID arrives\|fails [unnoticed]` | the end of sending one; `unnoticed`: the sender isn't told |
//! | `tick ID`, `fire ID` | now; at its next deadline, which nobody else notices |
//! | `time 100ms`, `run 2s` | time passes for all; with `run`, messages arrive as they are sent |
//! | `pass 2s`, `back 1s` | the clock goes on, or is set back, and nobody wakes |
//! | `deliver [KIND …] [from=1,2] [to=3] [max=N]` | of what lies on the wire now |
//! | `drop …`, `duplicate …`, `delay …`, `wire …` | likewise; what is delayed is held until it is released |
//! | `stabilize [1,2]` | delivers until nothing is on the wire (between these), but not what is held |
//! | `hold [KIND …] [from=] [to=]`, `release [KIND …]…` | holds back what is sent from now on; puts it on the wire |
//! | `cut 1,2`, `heal` | these reach only each other |
//! | `slow-disk ID`, `fast-disk ID`, `persist ID [N]`, `persist ID together` | |
//! | `stall-apply ID`, `resume-apply ID` | |
//! | `crash ID`, `restart ID` | |
//! | `status [ID …]`, `log [ID …]`, `membership [ID …]`, `progress ID`, `lease ID`, `deadline [ID …]`, `outcomes` | |

use std::{collections::BTreeSet, time::Duration};

use quorate_core::{
    Batch, Config, HardState, Index, Input, LogId, Membership, MembershipChange, MembershipParts, NodeId,
    Proposal, ReadKind, RoleKind, Run, Snapshot, Term, Token, Tokens, Transition,
};

use super::{
    args::{self, Args},
    show,
    world::{Filter, Setup, World},
};
use crate::common::Disk;

const KINDS: [&str; 14] = [
    "PreVote",
    "PreVoteReply",
    "Vote",
    "VoteReply",
    "Append",
    "Appended",
    "Conflict",
    "Heartbeat",
    "HeartbeatReply",
    "Commit",
    "ReadIndex",
    "ReadIndexReply",
    "TimeoutNow",
    "InstallSnapshot",
];

/// A script as it runs.
#[derive(Debug, Default)]
pub struct Session {
    world: World,
}

impl Session {
    /// Does what a command says.
    ///
    /// # Errors
    /// If there is no such command, or something happened that must never happen.
    pub fn run(&mut self, command: &str) -> Result<Vec<String>, String> {
        if let Some(command) = command.strip_prefix("quietly ") {
            self.run(command)?;
            return Ok(vec!["ok".into()]);
        }
        let (name, mut args) = Args::parse(command);
        let silence = self.command(&name, &mut args)?;
        args.end()?;
        let mut lines = self.world.take_lines();
        if lines.is_empty() {
            lines.push(silence.into());
        }
        Ok(lines)
    }

    /// What to say if nothing follows: `ok` where nothing should.
    fn command(&mut self, name: &str, args: &mut Args) -> Result<&'static str, String> {
        if self.setting(name, args)? {
            return Ok("ok");
        }
        if !(self.request(name, args)? || self.happening(name, args)? || self.look(name, args)?) {
            return Err(format!("no such command: {name}"));
        }
        Ok("nothing")
    }

    /// Commands that change what will happen.
    fn setting(&mut self, name: &str, args: &mut Args) -> Result<bool, String> {
        let world = &mut self.world;
        match name {
            "nodes" => {
                let count = args.number()?;
                let (setup, disk) = start(Config::new(NodeId(1)), args, &(1..=count).collect::<Vec<_>>())?;
                for id in 1..=count {
                    let config = Config { id: NodeId(id), ..setup.config.clone() };
                    world.setups.insert(id, Setup { config, ..setup.clone() });
                    world.start(id, disk.clone())?;
                }
            }
            "start" => {
                let id = args.number()?;
                let like = world.setups.get(&id).or_else(|| world.setups.values().next()).cloned();
                let voters: Vec<u64> =
                    like.iter().flat_map(|setup| setup.membership.voters()).map(|id| id.0).collect();
                let config = like.map_or_else(|| Config::new(NodeId(id)), |setup| setup.config);
                let (setup, disk) = start(Config { id: NodeId(id), ..config }, args, &voters)?;
                world.setups.insert(id, setup);
                world.start(id, disk)?;
            }
            "hold" => {
                let filter = filter(args)?;
                world.holds.push(filter);
            }
            "cut" => {
                let group = args::list(&args.next().ok_or("which nodes?")?)?;
                world.cut.push(group.into_iter().collect());
            }
            "heal" => world.cut.clear(),
            "slow-disk" => drop(world.slow_disks.insert(args.number()?)),
            "stall-apply" => drop(world.stalled.insert(args.number()?)),
            "back" => {
                let us = args::duration(&args.next().ok_or("how far?")?)?;
                world.now = quorate_core::Instant(world.now.0.saturating_sub(us));
            }
            "pass" => world.now = world.now.plus(args::duration(&args.next().ok_or("how long?")?)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What callers ask of a node.
    fn request(&mut self, name: &str, args: &mut Args) -> Result<bool, String> {
        let known = [
            "propose",
            "read",
            "change",
            "leave",
            "transfer",
            "abort-transfer",
            "step-down",
            "campaign",
            "forget-leader",
        ];
        if !known.contains(&name) {
            return Ok(false);
        }
        let id = args.number()?;
        let world = &mut self.world;
        world.node(id)?;
        match name {
            "propose" => {
                let term = args.named_number("in-term")?.map(Term);
                let commands = commands(args)?;
                let batch = Batch::from(commands.as_slice());
                let first_token = Token(world.requests(batch.count()));
                let proposal = Proposal { first_token, batch, term };
                world.ask(id, proposal.tokens(), Input::Propose(proposal))?;
            }
            "read" => {
                let kind = match args.named_number("at-least")? {
                    Some(index) => ReadKind::AtLeast(Index(index)),
                    None if args.flag("lease") => ReadKind::Lease,
                    None => {
                        args.flag("linearizable");
                        ReadKind::Linearizable
                    }
                };
                let token = Token(world.request());
                world.ask(id, Tokens::one(token), Input::Read { token, kind })?;
            }
            "change" | "leave" => {
                let transition = if args.flag("explicit") {
                    Transition::Explicit
                } else if args.flag("implicit") {
                    Transition::Implicit
                } else {
                    Transition::Auto
                };
                let ops = args.rest_named().into_iter().map(|(op, id)| {
                    show::op(&op, NodeId(args::parse(&id)?)).ok_or_else(|| format!("no such change: {op}"))
                });
                let ops = ops.collect::<Result<Vec<_>, String>>()?;
                let token = Token(world.request());
                let change = MembershipChange { ops, transition };
                world.ask(id, Tokens::one(token), Input::ChangeMembership { token, change })?;
            }
            "transfer" => {
                let to = args.named_number("to")?.map(NodeId);
                let token = Token(world.request());
                world.ask(id, Tokens::one(token), Input::TransferLeadership { token, to })?;
            }
            "abort-transfer" => world.tell(id, Input::AbortTransfer)?,
            "step-down" => world.tell(id, Input::StepDown)?,
            "campaign" => world.tell(id, Input::Campaign)?,
            _ => world.tell(id, Input::ForgetLeader)?,
        }
        Ok(true)
    }

    /// What happens to nodes, disks, state machines and the wire.
    fn happening(&mut self, name: &str, args: &mut Args) -> Result<bool, String> {
        let world = &mut self.world;
        match name {
            "elect" => elect(world, args.number()?)?,
            "unreachable" => {
                let (id, peer) = (args.number()?, NodeId(args.number()?));
                world.tell(id, Input::Unreachable { peer })?;
            }
            "reachable" => {
                let (id, peer) = (args.number()?, NodeId(args.number()?));
                world.tell(id, Input::Reachable { peer })?;
            }
            "storage-fails" => world.tell(args.number()?, Input::StorageFailed)?,
            "compact" => {
                let (keep, id) = (args.named_number("keep")?.unwrap_or(0), args.number()?);
                match args.named_number("at")? {
                    Some(at) => world.tell(id, Input::Compact { snapshot: Index(at), keep })?,
                    None => world.compact(id, keep)?,
                }
            }
            "snapshot" => {
                let (unnoticed, id) = (args.flag("unnoticed"), args.number()?);
                let arrived = match args.next().as_deref() {
                    Some("arrives") => true,
                    Some("fails") => false,
                    _ => return Err("a snapshot arrives or fails".into()),
                };
                world.snapshot(id, arrived, !unnoticed)?;
            }
            "tick" => world.tick(args.number()?)?,
            "fire" => {
                let id = args.number()?;
                let (at, _) =
                    world.raft(id)?.deadline().ok_or_else(|| format!("node {id} waits for nothing"))?;
                world.now = world.now.max(at);
                world.tick(id)?;
            }
            "time" | "run" => time(world, args::duration(&args.next().ok_or("how long?")?)?, name == "run")?,
            "deliver" | "drop" | "duplicate" | "delay" => on_wire(world, name, args)?,
            "stabilize" => {
                let among = args.next().map(|ids| args::list(&ids)).transpose()?;
                stabilize(world, &among.unwrap_or_default())?;
            }
            "release" => {
                let filter = filter(args)?;
                world.holds.retain(|hold| *hold != filter && filter != Filter::default());
                let (free, held) =
                    std::mem::take(&mut world.held).into_iter().partition(|e| filter.matches(e));
                world.held = held;
                world.wire.extend::<std::collections::VecDeque<_>>(free);
                return wire(world, &filter).map(|()| true);
            }
            "fast-disk" | "persist" => {
                let id = args.number()?;
                let pending = world.node(id)?.pending.len();
                if name == "fast-disk" {
                    world.slow_disks.remove(&id);
                }
                let count =
                    args.next().map(|count| if count == "together" { Ok(0) } else { args::parse(&count) });
                match count.transpose()? {
                    Some(0) => world.persist(id, pending)?,
                    count => (0..count.unwrap_or(pending)).try_for_each(|_| world.persist(id, 1))?,
                }
            }
            "resume-apply" => {
                let id = args.number()?;
                // What is handed over meanwhile comes after what was before.
                while let Some(up_to) = world.node(id)?.handed.pop_front() {
                    world.under(id, &format!("has applied up to {up_to}"), |world| {
                        world.tell(id, Input::Applied { up_to })
                    })?;
                }
                world.stalled.remove(&id);
            }
            "crash" => world.crash(args.number()?)?,
            "restart" => {
                let id = args.number()?;
                let disk = world.down.remove(&id).ok_or_else(|| format!("node {id} is not down"))?;
                world.start(id, disk)?;
                let status = show::status(world.raft(id)?);
                world.say(id, &format!("starts: {status}"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Commands that change nothing.
    fn look(&mut self, name: &str, args: &mut Args) -> Result<bool, String> {
        let world = &mut self.world;
        match name {
            "wire" => wire(world, &filter(args)?)?,
            "outcomes" => {
                for (token, end) in world.requests.clone() {
                    let end = end.unwrap_or_else(|| "pending".into());
                    world.print(format!("t{token} {end}"));
                }
            }
            "progress" => {
                let id = args.number()?;
                for peer in world.raft(id)?.status().peers {
                    world.say(id, &format!("sees {}", show::peer(&peer)));
                }
            }
            "status" | "log" | "membership" | "deadline" | "lease" => {
                let ids =
                    args.rest().iter().map(|id| args::parse(id)).collect::<Result<BTreeSet<u64>, _>>()?;
                let ids = if ids.is_empty() { world.nodes.keys().copied().collect() } else { ids };
                for id in ids {
                    let text = self.view(name, id)?;
                    self.world.say(id, &text);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn view(&self, name: &str, id: u64) -> Result<String, String> {
        let (raft, now) = (self.world.raft(id)?, self.world.now);
        let left = |at: quorate_core::Instant| format!("{} ms", at.since(now) / 1000);
        Ok(match name {
            "status" => show::status(raft),
            "log" => show::log(raft),
            "membership" => {
                let status = raft.status();
                format!("{} since {}", show::membership(&status.membership), status.membership_index)
            }
            "deadline" => raft
                .deadline()
                .map_or("waits for nothing".into(), |(at, reason)| format!("{reason:?} in {}", left(at))),
            _ => match raft.status().lease_until {
                Some(until) if until > now => format!("has a lease for {} more", left(until)),
                Some(_) => "has a lease that is over".into(),
                None => "has no lease".into(),
            },
        })
    }
}

/// A node's configuration: times in ms, sizes in bytes.
fn configure(mut config: Config, args: &mut Args) -> Result<Config, String> {
    let ms = |args: &mut Args, name: &str, field: &mut Duration| -> Result<(), String> {
        if let Some(value) = args.named(name) {
            *field = Duration::from_micros(args::duration(&value)?);
        }
        Ok(())
    };
    ms(args, "election", &mut config.election_timeout)?;
    ms(args, "heartbeat", &mut config.heartbeat_interval)?;
    ms(args, "drift", &mut config.max_clock_drift)?;
    ms(args, "quiesce", &mut config.quiesce_after)?;
    config.seed = args.named_number("seed")?.unwrap_or(config.seed);
    config.priority = args.named_number("priority")?.unwrap_or(config.priority);
    for (name, field) in [
        ("pre-vote", &mut config.pre_vote),
        ("check-quorum", &mut config.check_quorum),
        ("lease", &mut config.lease_reads),
    ] {
        *field = args.named_switch(name)?.unwrap_or(*field);
    }
    for (name, field) in [
        ("append-bytes", &mut config.max_append_bytes),
        ("inflight", &mut config.max_inflight_messages),
        ("inflight-bytes", &mut config.max_inflight_bytes),
        ("uncommitted-bytes", &mut config.max_uncommitted_bytes),
        ("unpersisted-bytes", &mut config.max_unpersisted_bytes),
        ("cached-bytes", &mut config.max_cached_bytes),
        ("applying-bytes", &mut config.max_applying_bytes),
        ("reads", &mut config.max_reads),
    ] {
        *field = args.named_number(name)?.unwrap_or(*field);
    }
    Ok(config)
}

/// How a node starts, and what is on its disk.
fn start(config: Config, args: &mut Args, voters: &[u64]) -> Result<(Setup, Disk), String> {
    let ids = |list: Vec<u64>| list.into_iter().map(NodeId).collect::<Vec<_>>();
    let parts = MembershipParts {
        voters: ids(args.named_list("voters")?.unwrap_or_else(|| voters.to_vec())),
        learners: ids(args.named_list("learners")?.unwrap_or_default()),
        ..MembershipParts::default()
    };
    let membership = Membership::try_from(parts).map_err(|error| error.to_string())?;
    let mut disk = Disk::default();
    if let Some(base) = args.named("base") {
        let (index, term) = base.split_once('@').ok_or("a base is index@term")?;
        let last = LogId::new(Term(args::parse(term)?), Index(args::parse(index)?));
        let snapshot = Snapshot { last, membership: membership.clone() };
        disk.base = Some(snapshot.clone());
        disk.snapshot = Some(snapshot);
    }
    for part in args.named("log").iter().flat_map(|log| log.split(',')) {
        let (term, count) = part.split_once('*').unwrap_or((part, "1"));
        let (term, count): (u64, u64) = (args::parse(term)?, args::parse(count)?);
        let first = disk.last().index.next();
        let commands: Vec<String> = (0..count).map(|at| format!("{}@{term}", first.0 + at)).collect();
        disk.log.extend(Run::commands(Term(term), first, &commands));
    }
    let term = args.named_number("term")?.map_or(disk.last().term, Term);
    disk.hard_state = HardState { term, vote: args.named_number("vote")?.map(NodeId) };
    let applied = args.named_number("applied")?.unwrap_or(0);
    let config = configure(config, args)?;
    Ok((Setup { config, membership, applied }, disk))
}

fn commands(args: &mut Args) -> Result<Vec<Vec<u8>>, String> {
    let (count, size) = (args.named_number("count")?, args.named_number("size")?);
    if count.is_none() && size.is_none() {
        if args.is_empty() {
            return Err("propose what?".into());
        }
        return Ok(args.rest().into_iter().map(String::into_bytes).collect());
    }
    Ok(vec![vec![b'x'; size.unwrap_or(1)]; count.unwrap_or(1)])
}

fn filter(args: &mut Args) -> Result<Filter, String> {
    let kinds = args.rest();
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(format!("no such message: {unknown}"));
    }
    let mut ids = |name| Ok::<_, String>(args.named_list(name)?.unwrap_or_default());
    Ok(Filter { kinds, from: ids("from")?, to: ids("to")? })
}

/// Messages that lie on the wire now are delivered, lost, doubled or held back.
fn on_wire(world: &mut World, what: &str, args: &mut Args) -> Result<(), String> {
    let max: usize = args.named_number("max")?.unwrap_or(usize::MAX);
    let filter = filter(args)?;
    let mut chosen = Vec::new();
    for envelope in std::mem::take(&mut world.wire) {
        if chosen.len() < max && filter.matches(&envelope) {
            chosen.push(envelope);
        } else {
            world.wire.push_back(envelope);
        }
    }
    if chosen.is_empty() {
        return Err("there is no such message on the wire".into());
    }
    for envelope in chosen {
        let text = format!(
            "{} → {} {}",
            show::node(envelope.from),
            show::node(envelope.to),
            show::message(&envelope.message)
        );
        match what {
            "deliver" => world.deliver(envelope)?,
            "drop" => world.print(format!("lost: {text}")),
            "delay" => {
                world.print(format!("later: {text}"));
                world.held.push_back(envelope);
            }
            _ => {
                world.print(format!("twice: {text}"));
                let message = envelope.message.clone();
                world.wire.push_back(super::world::Envelope { message, ..envelope });
                world.wire.push_back(envelope);
            }
        }
    }
    Ok(())
}

fn wire(world: &mut World, filter: &Filter) -> Result<(), String> {
    let lines: Vec<(u64, String)> = world
        .wire
        .iter()
        .filter(|envelope| filter.matches(envelope))
        .map(|e| (e.from.0, format!("→ {} {}", show::node(e.to), show::message(&e.message))))
        .collect();
    for (from, text) in lines {
        world.say(from, &format!("{text} (on the wire)"));
    }
    Ok(())
}

/// Delivers what is on the wire between some nodes (all of them, if none are named) until there is nothing left.
fn stabilize(world: &mut World, among: &[u64]) -> Result<(), String> {
    let inside = |id: NodeId| among.is_empty() || among.contains(&id.0);
    for _ in 0..10_000 {
        let Some(at) = world.wire.iter().position(|e| inside(e.from) && inside(e.to)) else {
            return Ok(());
        };
        if let Some(envelope) = world.wire.remove(at) {
            world.deliver(envelope)?;
        }
    }
    Err("the nodes never come to rest".into())
}

fn time(world: &mut World, us: u64, deliver: bool) -> Result<(), String> {
    let end = world.now.plus(us);
    for _ in 0..10_000 {
        if deliver {
            stabilize(world, &[])?;
        }
        let next = world.nodes.values().filter_map(|node| node.raft.deadline()).map(|(at, _)| at).min();
        let Some(next) = next.filter(|next| *next <= end) else {
            world.now = end;
            return Ok(());
        };
        world.now = world.now.max(next);
        for id in world.nodes.keys().copied().collect::<Vec<_>>() {
            if world.raft(id)?.deadline().is_some_and(|(at, _)| at <= world.now) {
                world.tick(id)?;
            }
        }
    }
    Err("time stands still".into())
}

fn elect(world: &mut World, id: u64) -> Result<(), String> {
    if world.nodes.values().any(|node| node.raft.role() == RoleKind::Leader) {
        world.now = world.now.plus(3_600_000_000);
    }
    world.tell(id, Input::Campaign)?;
    stabilize(world, &[])?;
    world.take_lines();
    let raft = world.raft(id)?;
    let (status, role) = (show::status(raft), raft.role());
    world.say(id, &status);
    if role == RoleKind::Leader { Ok(()) } else { Err(format!("node {id} was not elected: {status}")) }
}
