//! Backups, and what is made of them; and what is left when a quorum is lost. Against processes.
#![cfg(feature = "server")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use common::{CLUSTER, Cluster, Node, quorate, quorate_with, until};
use quorate_coord::pb::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RangeRequest,
        maintenance_client::MaintenanceClient,
    },
    mvccpb::KeyValue,
};
use quorate_core::NodeId;
use quorate_transport_quic::{ClusterId, pki::Ca};
use serde_json::Value;

const NEW: u64 = 0x7e57_0000_0000_0002;

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(output: Output) -> Value {
    serde_json::from_str(&ok(output)).unwrap()
}

/// The one line in which a command says why it failed, with exit code 1.
fn failed(output: &Output) -> String {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    let last = message.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{message}");
    last.to_owned()
}

/// Runs the program with a path or two among what it is told.
fn run(args: &[&str], paths: &[&Path]) -> Output {
    quorate().args(args).args(paths).output().unwrap()
}

fn restore(backup: &Path, node: &Node) -> Output {
    run(&["restore", "--config"], &[&node.config(), backup])
}

async fn put(node: &Node, key: &str, value: &str) -> i64 {
    let put = PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    node.kv().put(put).await.unwrap().into_inner().header.unwrap().revision
}

/// Everything there is at a revision; 0 is the newest.
async fn all(node: &Node, revision: i64) -> Vec<KeyValue> {
    let range = RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..Default::default() };
    node.kv().range(range).await.unwrap().into_inner().kvs
}

async fn hash_kv(node: &Node, revision: i64) -> (u32, i64, i64) {
    let mut client = MaintenanceClient::new(node.channel());
    let hash = client.hash_kv(HashKvRequest { revision }).await.unwrap().into_inner();
    (hash.hash, hash.compact_revision, hash.hash_revision)
}

/// A change of the state of every kind.
async fn fill(node: &Node) {
    for n in 0..200 {
        put(node, &format!("key/{:03}", n % 120), &format!("value {n}").repeat(20)).await;
    }
    let delete = DeleteRangeRequest { key: "key/01".into(), range_end: "key/02".into(), prev_kv: false };
    node.kv().delete_range(delete).await.unwrap();
    node.kv().compact(CompactionRequest { revision: 50, physical: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_new_nodes_have_what_a_backup_of_a_busy_one_has() {
    let mut old = Cluster::start(1).await;
    fill(&old.nodes[0]).await;
    // Somebody goes on writing all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let (mut kv, stopped) = (old.nodes[0].kv(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut n = 0_u64;
        while !stopped.load(Relaxed) {
            let value = n.to_string();
            let put = PutRequest { key: "busy".into(), value: value.into(), ..Default::default() };
            kv.put(put).await.unwrap();
            n += 1;
        }
        n
    });
    let acknowledged = put(&old.nodes[0], "last", "before the backup").await;
    let backup = old.dir.path().join("coord.backup");
    let args = ["backup", "--json", "--endpoints", &old.nodes[0].endpoint()];
    let told = json(run(&args, &[&backup]));
    let revision = told["revision"].as_i64().unwrap();
    assert!(revision >= acknowledged, "{told}");
    assert_eq!((&told["cluster"], &told["kind"]), (&format!("{CLUSTER:016x}").into(), &"backup".into()));
    assert_eq!(told["file_bytes"], fs::metadata(&backup).unwrap().len());
    assert_eq!(told["compacted"], 50);
    assert!(!old.dir.path().join("coord.backup.partial").exists());
    stop.store(true, Relaxed);
    assert!(writer.await.unwrap() > 0);
    let (expected, hash) = (all(&old.nodes[0], revision).await, hash_kv(&old.nodes[0], revision).await);
    let before = all(&old.nodes[0], 60).await;

    // It isn't overwritten unless that is asked for; the same bytes are told of it by `inspect`.
    assert!(failed(&run(&args, &[&backup])).contains("is there already"));
    assert_eq!(json(run(&["inspect", "--json"], &[&backup])), told);
    let text = ok(run(&["inspect"], &[&backup]));
    assert!(text.contains(&format!("revision   {revision}, compacted at 50")), "{text}");
    ok(run(&["backup", "--force", "--endpoints", &old.nodes[0].endpoint()], &[&old.dir.path().join("2")]));
    old.nodes[0].kill();

    let mut new = Cluster::make_as(NEW, 3);
    for node in &mut new.nodes {
        let text = ok(restore(&backup, node));
        assert!(text.contains("without --bootstrap"), "{text}");
        assert!(failed(&restore(&backup, node)).contains("holds a store already"));
        node.started = true;
        node.start();
    }
    new.wait_for_leader().await;
    for round in 0..2 {
        for node in &new.nodes {
            // A linearizable read, so it has caught up.
            assert_eq!(all(node, revision).await, expected, "node {} in round {round}", node.id);
            assert_eq!(all(node, 60).await, before, "history is there, too");
            assert_eq!(hash_kv(node, revision).await, hash, "node {} in round {round}", node.id);
        }
        let next = put(&new.nodes[round], "new", "cluster").await;
        assert_eq!(next, revision + 1 + round as i64, "revisions go on");
        let mut hashes = Vec::new();
        for node in &new.nodes {
            assert_eq!(all(node, 0).await.len(), expected.len() + 1);
            hashes.push(hash_kv(node, 0).await);
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
        for node in &mut new.nodes {
            if round == 0 {
                node.kill();
            } else {
                node.stop("TERM");
            }
            let told = json(run(&["inspect", "--json"], &[&node.data()]));
            assert_eq!((&told["sound"], &told["cluster"]), (&true.into(), &format!("{NEW:016x}").into()));
            assert_eq!(told["groups"][0]["state"]["revision"], revision, "{told}");
            assert_eq!(told["groups"][0]["membership"]["voters"], serde_json::json!(["1", "2", "3"]));
        }
        for node in &mut new.nodes {
            node.start();
        }
        new.wait_for_leader().await;
    }
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_of_this_very_cluster_is_refused_and_harms_nothing() {
    let mut old = Cluster::start(1).await;
    fill(&old.nodes[0]).await;
    let backup = old.dir.path().join("coord.backup");
    ok(run(&["backup", "--endpoints", &old.nodes[0].endpoint()], &[&backup]));
    let good = fs::read(&backup).unwrap();
    let new = Cluster::make_as(NEW, 1);
    let bad = old.dir.path().join("bad.backup");
    for at in [3, 40, good.len() / 3, good.len() / 2, good.len() - 30, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&bad, bytes).unwrap();
        for output in [restore(&bad, &new.nodes[0]), run(&["inspect"], &[&bad])] {
            let message = failed(&output);
            assert!(message.contains("bad.backup"), "byte {at}: {message}");
            assert!(message.contains("Take another backup"), "byte {at}: {message}");
        }
    }
    for len in [0, 10, good.len() / 2, good.len() - 1] {
        fs::write(&bad, &good[..len]).unwrap();
        assert!(failed(&restore(&bad, &new.nodes[0])).contains("bad.backup"), "{len} bytes");
    }
    fs::write(&bad, [&good[..], b"more"].concat()).unwrap();
    assert!(failed(&restore(&bad, &new.nodes[0])).contains("bad.backup"));
    assert!(!new.nodes[0].data().join("quorate.store").exists());

    // The very cluster, in an empty directory.
    let same = Cluster::make(1);
    let message = failed(&restore(&backup, &same.nodes[0]));
    assert!(message.contains("is the cluster that the backup is of"), "{message}");
    assert!(message.contains("set another `cluster` in"), "{message}");
    // By flags an id is made up and told.
    let data = new.dir.path().join("flags");
    let told = json(run(&["restore", "--json", "--id", "7", "--data"], &[&data, &backup]));
    let cluster = told["cluster"].as_str().unwrap();
    assert!(cluster.len() == 16 && cluster != format!("{CLUSTER:016x}"), "{told}");
    assert_eq!(json(run(&["inspect", "--json"], &[&data]))["cluster"], cluster);
    assert!(failed(&run(&["inspect"], &[&old.nodes[0].data()])).contains("in use"));

    // A node that stops sending is noticed, and nothing is left behind.
    old.nodes[0].kill();
    let none = old.dir.path().join("none");
    let args = ["backup", "--timeout", "0.5", "--endpoints", &old.nodes[0].endpoint()];
    assert!(failed(&run(&args, &[&none])).contains("refused"));
    assert!(!none.exists() && !old.dir.path().join("none.partial").exists());
}

#[test]
fn what_a_backup_is_not_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    fs::write(&file, "not a backup, but long enough to have a header and an end, were it one").unwrap();
    assert!(failed(&run(&["inspect"], &[&file])).contains("does not begin as a snapshot does"));
    assert!(failed(&run(&["inspect"], &[dir.path()])).contains("holds no store"));
    assert!(failed(&run(&["recover", "--force-single", "--yes"], &[dir.path()])).contains("holds no store"));
    assert_eq!(run(&["recover", "--yes"], &[dir.path()]).status.code(), Some(2), "it has to be said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_three_goes_on_alone_and_those_lost_are_not_let_in() {
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = BTreeMap::new();
    for n in 0..50 {
        let key = format!("key/{n}");
        let revision = put(&cluster.nodes[n % 3], &key, &n.to_string()).await;
        acknowledged.insert(key, revision);
    }
    let third = cluster.nodes[2].data();
    assert!(failed(&run(&["recover", "--force-single", "--yes"], &[&third])).contains("in use"));
    // It may be behind by what was acknowledged last: then another one would be the one to take.
    until("node 3 has all", Duration::from_secs(30), async || {
        let range = RangeRequest { key: "key/49".into(), serializable: true, ..Default::default() };
        cluster.nodes[2].kv().range(range).await.is_ok_and(|found| found.into_inner().count == 1)
    })
    .await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    let before = json(run(&["inspect", "--json"], &[&third]));
    assert_eq!((&before["sound"], &before["formerly"]), (&true.into(), &Value::Null));
    assert_eq!(before["groups"][0]["recoveries"], serde_json::json!([]));

    // Nobody is there to ask.
    let message = failed(&run(&["recover", "--force-single"], &[&third]));
    assert!(message.contains("say --yes"), "{message}");
    assert_eq!(json(run(&["inspect", "--json"], &[&third])), before, "nothing was changed");
    let output = run(&["recover", "--force-single", "--yes", "--json"], &[&third]);
    let warning = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(warning.contains("node 1, 2 had acknowledged after that is lost"), "{warning}");
    let told = json(output);
    let new = told["cluster"].as_str().unwrap().to_owned();
    assert_eq!(
        (&told["destroy"], &told["last"]),
        (&serde_json::json!(["1", "2"]), &before["groups"][0]["last"])
    );
    let record = |told: &Value| {
        let record = told["groups"][0]["recoveries"][0].clone();
        assert_eq!(record["old_cluster"], format!("{CLUSTER:016x}"));
        assert_eq!((&record["new_cluster"], &record["node"]), (&new.as_str().into(), &"3".into()));
        assert_eq!(record["voters"], serde_json::json!(["1", "2", "3"]));
        assert_eq!(record["last"], before["groups"][0]["last"]);
        record
    };
    let after = json(run(&["inspect", "--json"], &[&third]));
    assert_eq!((&after["cluster"], &after["formerly"]), (&new.as_str().into(), &before["cluster"]));
    assert_eq!(record(&after)["at"], told["record_at"]);
    assert!(ok(run(&["inspect"], &[&third])).contains("RECOVERED  node 3 went on alone"));
    assert!(failed(&run(&["recover", "--force-single", "--yes"], &[&third])).contains("is alone"));

    // With the old configuration it doesn't start; with what it was told to change it does, and has everything.
    let config = cluster.nodes[2].config();
    let serve = || run(&["serve", "--config"], &[&config]);
    assert!(failed(&serve()).contains("not of cluster"));
    let old = fs::read_to_string(&config).unwrap();
    let member = |id: u64| {
        let from = old.find(&format!("[[members]]\nid = {id}\n")).unwrap();
        old[from..].find("\n[[").map_or(&old[from..], |len| &old[from..=from + len])
    };
    let id = u64::from_str_radix(&new, 16).unwrap();
    // It keeps a transport, so that the others may knock.
    let ca = Ca::generate(ClusterId(id)).unwrap();
    ca.issue(NodeId(3)).unwrap().save(&cluster.nodes[2].dir).unwrap();
    let text = old.replace(&format!("{CLUSTER:016x}"), &new).replace(member(1), "").replace(member(2), "");
    fs::write(&config, text).unwrap();
    cluster.nodes[2].start();
    let alone = &cluster.nodes[2];
    until("node 3 leads", Duration::from_secs(30), async || {
        alone.status().await.is_some_and(|status| status.leader == 3)
    })
    .await;
    let found: BTreeMap<String, i64> = all(alone, 0)
        .await
        .into_iter()
        .map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision))
        .collect();
    assert_eq!(found, acknowledged);
    assert_eq!(put(alone, "alone", "1").await, acknowledged.values().max().unwrap() + 1);
    let backup = cluster.dir.path().join("after");
    assert_eq!(
        json(run(&["backup", "--json", "--endpoints", &alone.endpoint()], &[&backup]))["cluster"],
        *new
    );

    // One that comes back knocks in vain: of the old cluster only it is left, and the new one knows it not.
    cluster.nodes[0].start();
    until("node 3 has refused it, or it node 3", Duration::from_secs(30), async || {
        let logs = cluster.nodes[0].log_text() + &cluster.nodes[2].log_text();
        logs.lines().any(|line| line.contains("WARN") && line.contains("refus"))
    })
    .await;
    assert!(cluster.nodes[0].status().await.is_some_and(|status| status.leader == 0));
    let status = cluster.nodes[2].status().await.unwrap();
    assert_eq!((status.leader, all(&cluster.nodes[2], 0).await.len()), (3, 51));
    // Nor under the new name.
    cluster.nodes[1].started = true;
    let config = cluster.nodes[1].config();
    let text = fs::read_to_string(&config).unwrap().replace(&format!("{CLUSTER:016x}"), &new);
    fs::write(&config, text).unwrap();
    ca.issue(NodeId(2)).unwrap().save(&cluster.nodes[1].dir).unwrap();
    let output = quorate().args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).output().unwrap();
    assert!(failed(&output).contains("not of cluster"));

    // The record is in what is made of its backups, and under neither of its names.
    for (cluster, why) in
        [(new.as_str(), "that the backup is of"), (&format!("{CLUSTER:016x}"), "it was before")]
    {
        let data = cluster_dir(&backup, cluster);
        let args = ["restore", "--id", "1", "--cluster", cluster, "--data"];
        assert!(failed(&run(&args, &[&data, &backup])).contains(why));
    }
    let data = cluster_dir(&backup, "new");
    ok(run(&["restore", "--id", "1", "--data"], &[&data, &backup]));
    let restored = json(run(&["inspect", "--json"], &[&data]));
    assert_eq!(record(&restored)["at"], Value::Null, "it is in the snapshot");
}

fn cluster_dir(beside: &Path, name: &str) -> std::path::PathBuf {
    beside.with_file_name(format!("data-{name}"))
}

#[tokio::test]
async fn inspect_finds_damage_and_recover_refuses_it() {
    let mut cluster = Cluster::start(3).await;
    fill(&cluster.nodes[0]).await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    let data = cluster.nodes[0].data();
    let file = data.join("quorate.store");
    let good = fs::read(&file).unwrap();
    let mut found = 0;
    for at in (0..good.len()).step_by(good.len() / 16) {
        let mut bytes = good.clone();
        bytes[at..(at + 64).min(good.len())].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&file, &bytes).unwrap();
        let output = run(&["inspect", "--json"], &[&data]);
        assert_eq!(fs::read(&file).unwrap(), bytes, "nothing is changed");
        if output.status.success() {
            continue;
        }
        found += 1;
        let message = failed(&output);
        assert!(
            message.contains("quorate.store") || message.contains(&data.display().to_string()),
            "{message}"
        );
        failed(&quorate_with("", &["recover", "--force-single", "--yes", data.to_str().unwrap()]));
        assert_eq!(fs::read(&file).unwrap(), bytes, "nothing is changed");
    }
    assert!(found > 0, "some of it is in use");
    fs::write(&file, &good).unwrap();
    assert!(ok(run(&["inspect"], &[&data])).contains("checksums: all right"));
}
