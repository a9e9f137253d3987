//! `quorate inspect`: what a data directory or a backup holds. Nothing is changed.

use std::path::PathBuf;

use quorate_coord::{machine::Command, pb::command::ForcedRecovery};
use quorate_core::{EntryKind, Index, Load, LoadId, Loaded, LogId, LogReader as _, Membership, Run};
use quorate_storage_redb::{GroupInspection, Inspection, Inspector, SnapshotInspection};
use serde_json::{Value, json};

use super::{
    Failure, Result,
    archive::{self, Backup, bytes_text, log_id, log_id_json, members, members_json},
    client,
    config::cluster_id,
};

const EXAMPLES: &str = "\
Reads everything, and checks every checksum; exits with 1 if something is wrong.
Nothing is changed, also if the node was killed. The node must be stopped: look
at a running one with `quorate status`. The newest snapshot's state is read into
memory.

Examples:
  quorate inspect node-1/store             a node's data directory
  quorate inspect coord.backup             a backup
  quorate inspect node-1/store --json | jq '.groups[0].last'
                                           how far its log goes";

/// `quorate inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A node's data directory, or a backup
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// Print JSON: one object on one line
    #[arg(long)]
    json: bool,
}

/// Looks, tells, and says whether it is sound.
pub(crate) fn run(args: &Args) -> Result {
    let Args { path, json } = args;
    if path.is_file() {
        let backup = Backup::check(path)?;
        if *json {
            return client::print_json(&backup.json(path));
        }
        return client::print(format!("{}: a backup\n{}", path.display(), backup.text()).as_bytes());
    }
    let inspector =
        Inspector::open(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let found = inspector.inspection();
    let groups: Vec<Group<'_>> = found.groups.iter().map(|group| Group::look(&inspector, group)).collect();
    let problem = problem(found).or_else(|| groups.iter().find_map(|group| group.problem.clone()));
    if *json {
        client::print_json(&store_json(found, &groups, problem.as_deref()))?;
    } else {
        client::print(store_text(found, &groups, problem.as_deref()).as_bytes())?;
    }
    problem.map_or(Ok(()), |problem| Err(Failure::new(problem)))
}

/// The first thing that is wrong, if any is.
pub(crate) fn problem(found: &Inspection) -> Option<String> {
    let groups = || found.groups.iter();
    let snapshots = groups().flat_map(|group| &group.snapshots);
    let in_groups = groups().filter_map(|group| group.problem.as_ref());
    let in_snapshots = snapshots.filter_map(|snapshot| snapshot.problem.as_ref());
    found.problems.iter().chain(in_groups).chain(in_snapshots).next().cloned()
}

/// A group, and what the key-value machine has in it.
struct Group<'a> {
    store: &'a GroupInspection,
    state: Option<State>,
    /// Oldest first; where in the log, if they are not in the snapshot.
    recoveries: Vec<(Option<LogId>, ForcedRecovery)>,
    problem: Option<String>,
}

/// The state in the newest snapshot.
struct State {
    at: LogId,
    revision: i64,
    compacted: i64,
    digest: u64,
}

impl<'a> Group<'a> {
    fn look(inspector: &Inspector, store: &'a GroupInspection) -> Self {
        let mut group = Self { store, state: None, recoveries: Vec::new(), problem: None };
        if let Err(error) = group.state(inspector).and_then(|()| group.log(inspector)) {
            group.problem = Some(error);
        }
        group
    }

    fn state(&mut self, inspector: &Inspector) -> Result<(), String> {
        let sound = |snapshot: &&SnapshotInspection| snapshot.published && snapshot.problem.is_none();
        let Some(newest) = self.store.snapshots.iter().rev().find(sound) else { return Ok(()) };
        let reader = inspector.snapshot(self.store.group, newest.last).map_err(|error| error.to_string())?;
        let Some(reader) = reader else { return Ok(()) };
        let machine = archive::machine(reader).map_err(|error| format!("{}: {error}", newest.file))?;
        self.recoveries = machine.recoveries().iter().map(|recovery| (None, recovery.clone())).collect();
        self.state = Some(State {
            at: newest.last,
            revision: machine.revision(),
            compacted: machine.compacted(),
            digest: machine.digest(),
        });
        Ok(())
    }

    /// The records in the log after the snapshot.
    fn log(&mut self, inspector: &Inspector) -> Result<(), String> {
        let Some(reader) = inspector.reader().filter(|_| self.store.problem.is_none()) else { return Ok(()) };
        let after = self.state.as_ref().map_or(self.store.base.index, |state| state.at.index);
        let mut next = after.max(self.store.base.index).next();
        while next <= self.store.last.index {
            let load =
                Load { id: LoadId::default(), first: next, last: self.store.last.index, max_bytes: 1 << 20 };
            let loaded = reader.load(self.store.group, &load).map_err(|error| error.to_string())?;
            let Loaded::Entries(runs) = loaded else { return Ok(()) };
            for entry in runs.iter().flat_map(Run::entries).filter(|entry| entry.kind == EntryKind::Command) {
                if let Ok(Command::Recovered(recovery)) = Command::decode(entry.payload) {
                    self.recoveries.push((Some(entry.id), recovery));
                }
            }
            match runs.last() {
                Some(last) if last.last() >= next => next = last.last().next(),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Where the membership that is in force at the end of the log is.
    fn membership_at(&self) -> Index {
        self.store.memberships.last().map_or(self.store.base.index, |(index, _)| *index)
    }

    fn text(&self) -> String {
        let GroupInspection { group, incarnation, hard_state, base, last, entries, log_bytes, .. } =
            self.store;
        let membership: &Membership = self.store.membership();
        let mut text = format!("\ngroup {group}\n");
        let mut line = |what: &str, rest: String| text.push_str(&format!("  {what:<10} {rest}\n"));
        let after = if *base == LogId::ZERO { String::new() } else { format!(" after {}", log_id(*base)) };
        line("log", format!("{entries} entries{after}, {}", bytes_text(*log_bytes)));
        line("last", log_id(*last));
        let vote = hard_state.vote.map_or("none".to_owned(), |vote| format!("for node {vote}"));
        line("term", format!("{}, vote {vote}", hard_state.term));
        let terms = self.store.terms.iter().map(|start| format!("{} from index {}", start.term, start.first));
        let terms: Vec<_> = terms.collect();
        if !terms.is_empty() {
            line("terms", terms.join(", "));
        }
        line("starts", incarnation.to_string());
        line("members", format!("{}, since index {}", members(membership), self.membership_at()));
        for snapshot in &self.store.snapshots {
            let bytes = bytes_text(snapshot.file_bytes);
            let is = if snapshot.published { "" } else { ", not whole: being staged when the node ended" };
            line("snapshot", format!("at {}, {bytes}{is}, {}", log_id(snapshot.last), snapshot.file));
        }
        if let Some(state) = &self.state {
            let compacted = archive::compacted(state.compacted);
            line("state", format!("revision {}{compacted}, in the newest snapshot", state.revision));
        }
        for (at, recovery) in &self.recoveries {
            let at = at.map_or_else(String::new, |at| format!(" (index {} of the log)", at.index));
            line("RECOVERED", format!("{}{at}", archive::recovery(recovery)));
        }
        text
    }

    fn json(&self) -> Value {
        let GroupInspection { group, incarnation, hard_state, base, last, entries, log_bytes, .. } =
            self.store;
        let snapshots = self.store.snapshots.iter().map(|snapshot| {
            let info = snapshot.info.as_ref();
            json!({
                "file": snapshot.file,
                "file_bytes": snapshot.file_bytes,
                "at": log_id_json(snapshot.last),
                "published": snapshot.published,
                "state_bytes": info.map(|info| info.bytes),
                "checksum": info.map(|info| format!("{:08x}", info.checksum)),
                "membership": info.map(|info| members_json(&info.snapshot.membership)),
                "problem": snapshot.problem,
            })
        });
        let recoveries = self.recoveries.iter().map(|(at, recovery)| {
            let mut value = archive::recovery_json(recovery);
            if let Some(fields) = value.as_object_mut() {
                fields.insert("at".to_owned(), at.map_or(Value::Null, log_id_json));
            }
            value
        });
        let state = self.state.as_ref().map(|state| {
            json!({
                "at": log_id_json(state.at),
                "revision": state.revision,
                "compacted": state.compacted,
                "digest": format!("{:016x}", state.digest),
            })
        });
        let terms =
            self.store.terms.iter().map(|start| json!({ "term": start.term.0, "first": start.first.0 }));
        json!({
            "group": group.to_string(),
            "incarnation": incarnation.0,
            "term": hard_state.term.0,
            "vote": hard_state.vote.map(|vote| vote.to_string()),
            "base": log_id_json(*base),
            "last": log_id_json(*last),
            "entries": entries,
            "log_bytes": log_bytes,
            "terms": terms.collect::<Vec<_>>(),
            "membership": members_json(self.store.membership()),
            "membership_at": self.membership_at().0,
            "snapshots": snapshots.collect::<Vec<_>>(),
            "state": state,
            "recoveries": recoveries.collect::<Vec<_>>(),
            "problem": self.store.problem.as_ref().or(self.problem.as_ref()),
        })
    }
}

fn store_text(found: &Inspection, groups: &[Group<'_>], problem: Option<&str>) -> String {
    let Inspection { file, bytes, format, identity, formerly, newest_commit, .. } = found;
    let mut text = format!("node {} of cluster {}", identity.node, cluster_id::show_wide(identity.cluster));
    if let Some(formerly) = formerly {
        text.push_str(&format!(", which was cluster {} before", cluster_id::show_wide(*formerly)));
    }
    text.push_str(&format!(
        "\n  {:<10} {file}\n  {:<10} {}, format {format}, newest commit {newest_commit}\n",
        "file",
        "size",
        bytes_text(*bytes),
    ));
    groups.iter().for_each(|group| text.push_str(&group.text()));
    text.push_str(if problem.is_none() { "\nchecksums: all right\n" } else { "\nDAMAGED\n" });
    text
}

fn store_json(found: &Inspection, groups: &[Group<'_>], problem: Option<&str>) -> Value {
    json!({
        "kind": "store",
        "file": found.file,
        "file_bytes": found.bytes,
        "format": found.format,
        "cluster": cluster_id::show_wide(found.identity.cluster),
        "formerly": found.formerly.map(cluster_id::show_wide),
        "node": found.identity.node.to_string(),
        "newest_commit": found.newest_commit,
        "groups": groups.iter().map(Group::json).collect::<Vec<_>>(),
        "sound": problem.is_none(),
        "problems": found.problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let args = Args { path: dir.path().to_owned(), json: false };
        let message = run(&args).unwrap_err().to_string();
        assert!(message.contains("holds no store"), "{message}");
        let args = Args { path: dir.path().join("nowhere"), json: false };
        assert!(run(&args).is_err());
    }
}
