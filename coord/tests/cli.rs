//! `quorate serve` and the client commands, against processes.
#![cfg(feature = "server")]

mod common;

use std::{
    fs,
    process::{Output, Stdio},
    time::Duration,
};

use common::{CLUSTER, Cluster, free_ports, quorate, quorate_with, signal, until};
use quorate_core::NodeId;
use quorate_transport_quic::{ClusterId, pki::Ca};
use serde_json::Value;

/// What a command prints; it must succeed.
fn ok(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(output: Output) -> Value {
    let text = ok(output);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The exit code and the one line in which it says why.
fn failed(output: &Output) -> (Option<i32>, String) {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    let last = message.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{message}");
    (output.status.code(), last.to_owned())
}

#[tokio::test]
async fn what_a_client_does_on_one_node_another_one_shows() {
    let cluster = Cluster::start(3).await;
    let at = |node: usize| cluster.nodes[node].endpoint();
    let run = |node: usize, args: &[&str]| quorate_with("", &[args, &["--endpoints", &at(node)]].concat());

    assert_eq!(ok(run(0, &["put", "user/1", "ada"])), "OK\n");
    assert_eq!(ok(run(1, &["put", "user/2", "grace"])), "OK\n");
    assert_eq!(ok(run(2, &["get", "user/1"])), "user/1\nada\n");
    assert_eq!(ok(run(1, &["get", "user/", "--prefix", "--keys-only"])), "user/1\nuser/2\n");
    assert_eq!(
        ok(run(1, &["get", "user/", "--prefix", "--value-only", "--order", "descend"])),
        "grace\nada\n"
    );
    assert_eq!(ok(run(2, &["get", "", "--prefix", "--count-only"])), "2\n");
    assert_eq!(ok(run(2, &["get", "user/1", "user/2", "--limit", "5"])), "user/1\nada\n");
    assert_eq!(ok(run(0, &["get", "nobody"])), "");
    assert_eq!(ok(run(0, &["put", "user/1", "lovelace", "--prev"])), "OK\nuser/1\nada\n");
    assert_eq!(ok(run(0, &["get", "user/1", "--value-only", "--rev", "2"])), "ada\n");
    let input = quorate_with("line 1\nline 2\n", &["put", "text", "-", "--endpoints", &at(2)]);
    assert_eq!(ok(input), "OK\n");

    // JSON: the same from any node, but for who answered.
    let got = json(run(2, &["get", "text", "--json"]));
    assert_eq!(got["kvs"][0]["value"], "line 1\nline 2\n");
    assert_eq!(got["kvs"][0]["version"], 1);
    assert_eq!((&got["count"], &got["more"]), (&1.into(), &false.into()));
    assert_eq!(got["header"]["cluster_id"], format!("{CLUSTER:016x}"));
    assert_eq!(got["header"]["member_id"], "3");
    assert_eq!(got["header"]["revision"], got["kvs"][0]["mod_revision"]);
    let put = json(run(1, &["put", "text", "other", "--prev", "--json"]));
    assert_eq!(put["prev_kv"]["value"], "line 1\nline 2\n");

    // A lock that nobody has, then one that somebody has.
    let lock = "version(\"lock\") = 0\n\nput lock me\n\nget lock\n";
    let txn =
        |input: &str, more: &[&str]| quorate_with(input, &[&["txn", "--endpoints", &at(1)], more].concat());
    assert_eq!(ok(txn(lock, &[])), "SUCCESS\n\nOK\n");
    assert_eq!(ok(txn(lock, &[])), "FAILURE\n\nlock\nme\n");
    let answer = json(txn(lock, &["--json"]));
    assert_eq!(answer["succeeded"], false);
    assert_eq!(answer["responses"][0]["get"]["kvs"][0]["value"], "me");
    let (code, message) = failed(&txn("mod(lock) ~ 1\n", &[]));
    assert_eq!(code, Some(1));
    assert!(message.contains("the transaction, line 1: "), "{message}");

    let deleted = json(run(0, &["del", "user/", "--prefix", "--prev", "--json"]));
    assert_eq!((&deleted["deleted"], &deleted["prev_kvs"][1]["value"]), (&2.into(), &"grace".into()));
    assert_eq!(ok(run(2, &["del", "user/", "--prefix"])), "0\n");

    // What every node refuses is no matter of endpoints.
    let (code, message) = failed(&run(0, &["put", "", "x"]));
    assert_eq!((code, message.as_str()), (Some(1), "error: etcdserver: key is not provided"));

    let all = [at(0), at(1), at(2)].join(",");
    let members = json(quorate_with("", &["members", "--json", "--endpoints", &all]));
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    assert_eq!(members["members"][1]["client_urls"][0], format!("http://{}", at(1)));
    let status = json(quorate_with("", &["status", "--cluster", "--json", "--endpoints", &all]));
    let leaders: Vec<_> = status.as_array().unwrap().iter().map(|node| node["leader"].clone()).collect();
    assert!(leaders.len() == 3 && leaders.iter().all(|leader| *leader == leaders[0]), "{status}");
    let table = ok(quorate_with("", &["status", "--endpoints", &all]));
    assert_eq!(table.matches("(this)").count(), 1, "{table}");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_a_dead_cluster_is_reported() {
    let mut cluster = Cluster::start(3).await;
    let all: Vec<String> = cluster.nodes.iter().map(common::Node::endpoint).collect();
    let all = all.join(",");
    cluster.nodes[0].kill();
    cluster.wait_for_leader().await;
    assert_eq!(ok(quorate_with("", &["put", "a", "1", "--endpoints", &all])), "OK\n");
    assert_eq!(ok(quorate().args(["get", "a"]).env("QUORATE_ENDPOINTS", &all).output().unwrap()), "a\n1\n");
    let table = ok(quorate_with("", &["status", "--endpoints", &all]));
    assert!(table.lines().nth(1).unwrap().contains("refused"), "{table}");

    cluster.nodes[1].kill();
    // Without a quorum: what the node has may be read; a write fails, and says that it did nothing or may have.
    let own = ok(quorate_with("", &["get", "a", "--serializable", "--endpoints", &all]));
    assert_eq!(own, "a\n1\n");
    let (code, message) =
        failed(&quorate_with("", &["put", "a", "2", "--timeout", "2", "--endpoints", &all]));
    assert!(matches!(code, Some(1 | 3)), "{code:?}: {message}");
    assert_eq!(code == Some(3), message.contains("whether it was done is not known"), "{message}");
    cluster.nodes[2].kill();
    let (code, message) = failed(&quorate_with("", &["get", "a", "--timeout", "0.5", "--endpoints", &all]));
    assert_eq!(code, Some(1));
    assert!(message.contains("refused") && message.contains("(3 endpoints tried)"), "{message}");
    assert_eq!(quorate_with("", &["status", "--endpoints", &all]).status.code(), Some(1));
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(3).await;
    for name in ["TERM", "INT"] {
        let leader = cluster.wait_for_leader().await;
        let node = usize::try_from(leader).unwrap() - 1;
        let term = cluster.nodes[node].status().await.unwrap().raft_term;
        cluster.nodes[node].stop(name);
        assert_eq!(cluster.nodes[node].log_text().matches("leadership handed over").count(), 1);
        let next = cluster.wait_for_leader().await;
        assert_ne!(next, leader);
        let next = &cluster.nodes[usize::try_from(next).unwrap() - 1];
        assert!(next.status().await.unwrap().raft_term > term);
        assert_eq!(ok(quorate_with("", &["put", "a", name, "--endpoints", &next.endpoint()])), "OK\n");
        fs::remove_file(cluster.nodes[node].log()).unwrap();
        cluster.nodes[node].start();
    }
}

#[tokio::test]
async fn wrong_usage_is_2_and_bench_reports_what_it_measured() {
    assert_eq!(quorate_with("", &["put", "a"]).status.code(), Some(2));
    assert_eq!(quorate_with("", &["get", "a", "--endpoints", "https://a:1"]).status.code(), Some(2));
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.nodes[0].endpoint();
    let args =
        ["bench", "put", "--clients", "4", "--total", "50", "--value-size", "10", "--json", "--endpoints"];
    let report = json(quorate_with("", &[&args[..], &[&endpoint]].concat()));
    assert_eq!((&report["puts"], &report["failed"]), (&50.into(), &0.into()));
    assert!(report["latency_ms"]["p50"].as_f64().unwrap() <= report["latency_ms"]["max"].as_f64().unwrap());
    let count = quorate_with("", &["get", "bench/", "--prefix", "--count-only", "--endpoints", &endpoint]);
    assert_eq!(ok(count), "50\n");
    let (code, message) = failed(&quorate_with("", &["bench", "put", "--endpoints", "127.0.0.1:1"]));
    assert_eq!(code, Some(1));
    assert!(message.contains("is the cluster running?"), "{message}");
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_cluster_is_refused_and_harms_nobody() {
    let mut cluster = Cluster::make(3);
    // Its own authority vouches for it, and so it starts; the others' does not.
    let stranger = Ca::generate(ClusterId(CLUSTER)).unwrap();
    stranger.issue(NodeId(3)).unwrap().save(&cluster.nodes[2].dir).unwrap();
    for node in &mut cluster.nodes {
        node.start();
    }
    until("nodes 1 and 2 have a leader", Duration::from_secs(30), async || {
        cluster.nodes[0].status().await.is_some_and(|status| status.leader > 0)
    })
    .await;
    for n in [0, 1] {
        until("they log that node 3 is refused", Duration::from_secs(30), async || {
            cluster.nodes[n].log_text().lines().any(|line| line.contains("WARN") && line.contains("refus"))
        })
        .await;
    }
    let [one, two, three] = [0, 1, 2].map(|n| cluster.nodes[n].endpoint());
    assert_eq!(ok(quorate_with("", &["put", "a", "1", "--endpoints", &one])), "OK\n");
    assert_eq!(ok(quorate_with("", &["get", "a", "--value-only", "--endpoints", &two])), "1\n");
    // It has learnt nothing, and nobody takes it for a leader.
    let own = quorate_with("", &["get", "a", "--serializable", "--endpoints", &three]);
    assert_eq!(ok(own), "");
    assert!(cluster.nodes[0].status().await.unwrap().leader != 3);
    assert!((0..3).all(|n| cluster.nodes[n].runs()));
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    let cluster = Cluster::make(3);
    let node = &cluster.nodes[0];
    let file = node.dir.join("node.toml");
    let good = fs::read_to_string(&file).unwrap();
    let serve = |more: &[&str]| {
        let output = quorate().args(["serve", "--config"]).arg(&file).args(more).output().unwrap();
        let (code, message) = failed(&output);
        assert_eq!(code, Some(1), "{message}");
        message
    };
    for (from, to, expected) in [
        ("id = 1", "id = \"one\"", "node.toml, line 2: invalid type"),
        ("listen-client", "listen-clint", "node.toml, line 5: unknown field `listen-clint`"),
        ("format = 1", "format = 9", "node.toml, line 1: unknown format 9; this version knows 1"),
        ("cert = \"node.pem\"", "cert = \"none.pem\"", "none.pem"),
        // Node 2's name, node 1's certificate.
        ("\nid = 1\n", "\nid = 2\n", "node 1"),
        ("cluster = \"7e57", "cluster = \"7e58", "cluster 7e5"),
    ] {
        assert!(good.contains(from));
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        let message = serve(&["--bootstrap"]);
        assert!(message.contains(expected), "{from} -> {to}: {message}");
        assert!(!node.dir.join("store/quorate.store").exists(), "{from} -> {to} made a store");
    }
    fs::write(&file, &good).unwrap();
    assert!(serve(&[]).contains("with --bootstrap, if this node has never run before"));
}

#[tokio::test]
async fn a_store_is_made_once_and_is_its_nodes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports(1);
    let serve = |id: &str, cluster: &str, more: &[&str]| {
        let mut command = quorate();
        let listen = format!("127.0.0.1:{port}");
        command.args(["serve", "--id", id, "--cluster", cluster, "--listen-client", &listen, "--data"]);
        command.arg(dir.path()).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    for name in ["TERM", "INT"] {
        let first = name == "TERM";
        let more: &[&str] = if first { &["--bootstrap", "--log-format", "json"] } else { &[] };
        let mut node = serve("1", "00c0ffee00c0ffee", more).spawn().unwrap();
        until("it leads", Duration::from_secs(30), async || {
            common::status(port).await.is_some_and(|status| status.leader == 1)
        })
        .await;
        signal(node.id(), name);
        assert_eq!(node.wait().unwrap().code(), Some(0));
        let log = String::from_utf8(node.wait_with_output().unwrap().stderr).unwrap();
        if !first {
            assert!(log.contains(&format!("stopping node=1 why=SIG{name}")), "{log}");
            continue;
        }
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (line, field) in lines
            .iter()
            .flat_map(|line| ["timestamp", "level", "target", "message"].map(|field| (line, field)))
        {
            assert!(line[field].is_string(), "{field} of {line}");
        }
        let the = |message: &str| {
            let line = lines.iter().find(|line| line["message"] == message);
            line.unwrap_or_else(|| panic!("no line says {message:?}:\n{log}"))
        };
        assert_eq!((&the("stopping")["node"], &the("stopping")["why"]), (&"1".into(), &"SIGTERM".into()));
        assert_eq!(
            (&the("leader elected")["leader"], &the("leader elected")["level"]),
            (&"1".into(), &"INFO".into())
        );
    }
    for (id, cluster, more, expected) in [
        ("1", "00c0ffee00c0ffee", &["--bootstrap"][..], "already holds a store"),
        ("2", "00c0ffee00c0ffee", &[], "of node 1, not of node 2"),
        ("1", "00c0ffee00c0fff0", &[], "not of cluster"),
    ] {
        let (code, message) = failed(&serve(id, cluster, more).output().unwrap());
        assert_eq!(code, Some(1));
        assert!(message.contains(expected), "{message}");
    }
}
