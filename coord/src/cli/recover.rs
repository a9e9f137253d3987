//! `quorate recover --force-single`: what is left when a quorum is lost for good.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use quorate_coord::{machine::Command, pb::command::ForcedRecovery};
use quorate_core::NodeId;
use quorate_storage_redb::{Forced, GroupInspection, Inspection, RedbStore};
use serde_json::json;

use super::{Failure, Result, archive, client, config::cluster_id};

const EXAMPLES: &str = "\
When so many nodes are lost for good that no majority is left, this makes one of
those that are left a cluster of its own, under a new cluster id. Only then: if
the others can come back, start them instead, and nothing is lost.

- What the lost nodes had acknowledged and this one never got is LOST. Take the
  node whose log is newest: `quorate inspect` on each; the highest term of the
  last entry counts, then its index.
- What this node has and nobody was told of may come TRUE: an unfinished write.
- All other nodes of the old cluster must be destroyed. The new cluster id keeps
  them apart from this one; it does not stop them from serving clients on their
  own, should a majority of them come back.
- Copy the directory first. There is no way back.

The node must be stopped. A record of it is put into the log; `quorate inspect`
shows it, and backups hold it.

Examples:
  quorate inspect node-3/store                     how far its log goes
  cp -a node-3/store node-3/store.before
  quorate recover --force-single node-3/store      asks before it does anything
  quorate recover --force-single --yes --json node-3/store | jq -r .cluster";

/// `quorate recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The data directory of the node that is to go on
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Make it the only voter of a new cluster
    #[arg(long, required = true)]
    force_single: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON: one object on one line
    #[arg(long)]
    json: bool,
}

/// Warns, asks, and does it.
pub(crate) fn run(args: &Args) -> Result {
    let Args { dir, force_single: _, yes, json } = args;
    let at = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", dir.display()));
    let found = Inspection::of(dir).map_err(|error| at(&error))?;
    if let Some(problem) = super::inspect::problem(&found) {
        return Err(Failure::new(format!(
            "{problem}: nothing was changed. Take another node that is left, or restore a backup"
        )));
    }
    let before = found.identity;
    let group = found.groups.first().ok_or_else(|| at(&"there is no group in this store"))?;
    let old = u64::try_from(before.cluster);
    let old = old.map_err(|_| at(&"its cluster id is none of this program's"))?;
    if group.membership().members() == [before.node] {
        return Err(Failure::new(format!(
            "{}: node {} is alone in its cluster already: just start it",
            dir.display(),
            before.node
        )));
    }
    warn(dir, before.node, old, group, found.formerly)?;
    if !yes {
        confirm()?;
    }
    let new = cluster_id::random()?;
    let record = |forced: &Forced| Command::Recovered(record(forced, old, new)).encode().to_vec();
    let done = RedbStore::force_single(dir, new.into(), record).map_err(|error| {
        if RedbStore::identity_in(dir).is_ok_and(|now| now == Some(before)) {
            return at(&error);
        }
        Failure::unknown(format!("{}: {error}; it may be half done: do it again", dir.display()))
    })?;
    let forced = done.first().ok_or_else(|| at(&"there was no group in this store"))?;
    tell(dir, forced, new, *json)
}

fn record(forced: &Forced, old_cluster: u64, new_cluster: u64) -> ForcedRecovery {
    let Forced { after, membership_before, last_before, .. } = forced;
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    ForcedRecovery {
        node: after.node.0,
        old_cluster,
        new_cluster,
        voters: ids(membership_before.voters()),
        voters_outgoing: ids(membership_before.outgoing()),
        learners: ids(membership_before.learners()),
        last_term: last_before.term.0,
        last_index: last_before.index.0,
    }
}

fn warn(dir: &Path, node: NodeId, old: u64, group: &GroupInspection, formerly: Option<u128>) -> Result {
    let membership = group.membership();
    let others: Vec<NodeId> = membership.members().into_iter().filter(|id| *id != node).collect();
    let mut text = format!(
        "{}: node {node} of cluster {}, {}\nIts log ends with {}.\n",
        dir.display(),
        cluster_id::show(old),
        archive::members(membership),
        archive::log_id(group.last),
    );
    if let Some(formerly) = formerly {
        let formerly = cluster_id::show_wide(formerly);
        text.push_str(&format!(
            "It was of cluster {formerly} before: a recovery was begun or done already.\n"
        ));
    }
    if !membership.is_voter(node) {
        text.push_str("It is no voter: a voter's log may be newer.\n");
    }
    let others = archive::ids(&others);
    text.push_str(&format!(
        "WARNING: what node {others} had acknowledged after that is lost; what nobody was told of may come true.\n\
         WARNING: node {others} must be destroyed: stopped for good, the data removed. There is no way back.\n"
    ));
    write(&text)
}

fn confirm() -> Result {
    if !io::stdin().is_terminal() {
        return Err(Failure::new("nothing was changed: stdin is no terminal to ask on; say --yes"));
    }
    write("Type \"yes\" to go on: ")?;
    let mut answer = String::new();
    let _read = io::stdin().lock().read_line(&mut answer);
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::new("nothing was changed: the answer was not yes"))
    }
}

/// To stderr: stdout is for what comes of it.
fn write(text: &str) -> Result {
    let mut err = io::stderr().lock();
    let written = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    // Whoever can't be warned has not agreed.
    written.map_err(|error| Failure::new(format!("nothing was changed: no warning can be shown: {error}")))
}

fn tell(dir: &Path, forced: &Forced, new: u64, json: bool) -> Result {
    let Forced { before, after, membership_before, last_before, membership_at, record_at, .. } = forced;
    let cluster = cluster_id::show(new);
    let others: Vec<NodeId> =
        membership_before.members().into_iter().filter(|id| *id != after.node).collect();
    if json {
        return client::print_json(&json!({
            "data": dir.display().to_string(),
            "node": after.node.to_string(),
            "cluster": cluster,
            "old_cluster": cluster_id::show_wide(before.cluster),
            "old_membership": archive::members_json(membership_before),
            "last": archive::log_id_json(*last_before),
            "membership_at": archive::log_id_json(*membership_at),
            "record_at": archive::log_id_json(*record_at),
            "destroy": others.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
    }
    let node = after.node;
    client::print(
        format!(
            "node {node} is alone in the new cluster {cluster}\n\nNext:\n\
             - in its configuration: cluster = \"{cluster}\", and of [[members]] only node {node}; remove [tls], which a \
             node without peers doesn't need, or issue certificates for the new cluster\n\
             - start it, without --bootstrap: quorate serve --config …, or\n  \
             quorate serve --id {node} --cluster {cluster} --data {}\n\
             - destroy node {}: none of them may run again with the data it has\n\
             - to have several nodes again: `quorate backup` from this one, and `quorate restore` on each node of another \
             new cluster\n",
            dir.display(),
            archive::ids(&others),
        )
        .as_bytes(),
    )
}
