//! `quorate restore`: a node of a new cluster, made from a backup.

use std::path::{Path, PathBuf};

use quorate_core::{GroupId, Membership, NodeId};
use quorate_storage_redb::{self as storage, RedbStore};
use serde_json::json;

use super::{
    Failure, Result,
    archive::{self, Backup},
    client,
    config::{self, NodeConfig, cluster_id},
    node_args::NodeArgs,
    serve::identity,
};

const EXAMPLES: &str = "\
Makes the data directory of one node. Run it once for each node of the new
cluster, with the same backup and the same cluster id; then start them with
`quorate serve`, without --bootstrap. All keys have the revisions that they had.

The cluster is a new one, with an id that was never used: nodes of the old one
may be alive, and remember what the backup doesn't hold. Certificates are for
one cluster, so it needs new ones, too. Without --config and --cluster an id is
made up, and printed for the other nodes.

Nothing is written if the directory holds a store or the backup is damaged. The
state is read into memory, as a node that starts does.

Examples:
  quorate restore coord.backup --config node-1/node.toml
  quorate restore coord.backup --id 1 --data ./alone
                                            a cluster of one
  quorate restore coord.backup --id 1 --data ./n1 --cluster 00c0ffee00c0ffee \\
      --listen-peer 10.0.0.1:2380 --peer 2=10.0.0.2:2380 --peer 3=10.0.0.3:2380 \\
      --ca ca.pem --cert n1.pem --key n1.key";

/// `quorate restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file that `quorate backup` has written
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    /// The new cluster's id: 16 hexadecimal digits, never used before; made up if left out
    #[arg(long, value_name = "HEX", value_parser = config::cluster_id::parse)]
    cluster: Option<u64>,
    /// Print JSON: one object on one line
    #[arg(long)]
    json: bool,
}

/// Checks all, and then makes the store.
pub(crate) fn run(args: Args) -> Result {
    let Args { backup: file, node, cluster, json } = args;
    let from_file = node.config.clone();
    let minted = from_file.is_none() && cluster.is_none();
    let cluster = if minted { Some(cluster_id::random()?) } else { cluster };
    let config = node.config(cluster)?;
    let backup = Backup::check(&file)?;
    check_cluster(&config, from_file.as_deref(), &file, &backup)?;
    let found = RedbStore::identity_in(&config.data).map_err(|error| at(&config, &error))?;
    if let Some(identity) = found {
        return Err(Failure::new(format!(
            "{} holds a store already, of {identity}: nothing was changed. Restore into another directory",
            config.data.display()
        )));
    }
    let voters = Membership::of_voters(config.members.iter().map(|member| NodeId(member.id)));
    let store = RedbStore::restore(
        &config.data,
        identity(&config),
        GroupId::default(),
        voters,
        &mut archive::open(&file)?,
    );
    store.and_then(RedbStore::close).map_err(|error| at(&config, &error))?;
    if json {
        return client::print_json(&json!({
            "cluster": cluster_id::show(config.cluster),
            "node": config.id.to_string(),
            "data": config.data.display().to_string(),
            "backup": backup.json(&file),
        }));
    }
    client::print(done(&config, from_file.as_deref(), minted, &backup).as_bytes())
}

fn at(config: &NodeConfig, error: &storage::Error) -> Failure {
    Failure::new(format!("{}: {error}", config.data.display()))
}

/// Is it one that was never used, as far as can be told? The state is read for that, and so it is known that it can be.
fn check_cluster(config: &NodeConfig, from_file: Option<&Path>, file: &Path, backup: &Backup) -> Result {
    let machine = archive::machine(archive::open(file)?)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let recoveries = machine.recoveries().iter();
    let before = recoveries.flat_map(|recovery| [recovery.old_cluster, recovery.new_cluster]);
    let own = backup.header.identity.cluster == u128::from(config.cluster);
    if !own && before.into_iter().all(|cluster| cluster != config.cluster) {
        return Ok(());
    }
    let whose = if own { "the cluster that the backup is of" } else { "a cluster that it was before" };
    let place = from_file.map_or("give another --cluster".to_owned(), |path| {
        format!("set another `cluster` in {} and on the other nodes", path.display())
    });
    Err(Failure::new(format!(
        "{} is {whose}: its nodes may be alive, and remember what the backup doesn't hold, so the new one must be another: \
         {place}, with certificates for it",
        cluster_id::show(config.cluster)
    )))
}

fn done(config: &NodeConfig, from_file: Option<&Path>, minted: bool, backup: &Backup) -> String {
    let cluster = cluster_id::show(config.cluster);
    let mut text = format!(
        "node {} of cluster {cluster} is restored in {}\n{}\nNext:\n",
        config.id,
        config.data.display(),
        backup.text(),
    );
    let others: Vec<u64> =
        config.members.iter().map(|member| member.id).filter(|id| *id != config.id).collect();
    if !others.is_empty() {
        let flag = if minted { format!(", with --cluster {cluster}") } else { String::new() };
        text.push_str(&format!("- restore the same backup for node {} too{flag}\n", archive::ids(&others)));
        text.push_str(&format!("- each needs a certificate of cluster {cluster}\n"));
    }
    let start = from_file.map_or_else(
        || {
            let more = if others.is_empty() { "" } else { " …, as here" };
            format!(
                "quorate serve --id {} --cluster {cluster} --data {}{more}",
                config.id,
                config.data.display()
            )
        },
        |path| format!("quorate serve --config {}", path.display()),
    );
    text.push_str(&format!("- start it, without --bootstrap: {start}\n"));
    text
}
