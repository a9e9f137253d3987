//! What a node tells Prometheus, and that the page and the dashboard about it speak of the same.
#![cfg(feature = "server")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{Cluster, until};
use metrics::Unit;
use quorate_coord::{
    metrics::{
        etcd,
        names::{self, Kind, Metric},
    },
    pb::etcdserverpb::{PutRequest, RangeRequest},
};
use serde_json::Value;
use tonic::Code;

/// What the endpoint at this port shows: each series with its value.
fn scrape(port: u16) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let series = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    series.collect()
}

fn all() -> impl Iterator<Item = &'static Metric> {
    quorate_runtime_tokio::metrics::names::ALL.iter().chain(names::ALL)
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Three nodes, each of them at its port for metrics.
async fn start() -> (Cluster, u64) {
    let mut cluster = Cluster::make(3);
    for node in &mut cluster.nodes {
        let config = fs::read_to_string(node.config()).unwrap();
        let metrics = format!("metrics = \"127.0.0.1:{}\"\n[tls]", node.port + 2);
        fs::write(node.config(), config.replace("[tls]", &metrics)).unwrap();
        node.start();
    }
    let leader = cluster.wait_for_leader().await;
    (cluster, leader)
}

#[tokio::test]
async fn prometheus_is_told_what_happened() {
    let (mut cluster, leader) = start().await;
    let port = |id: u64| cluster.nodes.iter().find(|node| node.id == id).unwrap().port;
    let follower = cluster.nodes.iter().map(|node| node.id).find(|id| *id != leader).unwrap();
    let mut kv = cluster.nodes.iter().find(|node| node.id == leader).unwrap().kv();
    for n in 0..10 {
        let put = PutRequest { key: format!("key {n}").into(), value: "x".into(), ..PutRequest::default() };
        kv.put(put).await.unwrap();
    }
    let code = kv.range(RangeRequest::default()).await.unwrap_err().code();
    assert_eq!(code, Code::InvalidArgument, "there is no key");

    let label = |name: &str, id: u64| format!("{name}{{node=\"{id}\"}}");
    let grpc = |name: &str, method: &str, code: &str| {
        format!(
            "{name}{{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"{method}\"{code}}}"
        )
    };
    // Gauges are looked at once a second.
    let mut seen = BTreeMap::new();
    until("the leader shows all that was put", Duration::from_secs(30), async || {
        seen = scrape(port(leader) + 2);
        seen.get(&label("quorate_kv_revision", leader)) == Some(&11.0)
    })
    .await;
    for (series, value) in [
        (grpc("grpc_server_started_total", "Put", ""), 10.0),
        (grpc("grpc_server_handled_total", "Put", ",grpc_code=\"Ok\""), 10.0),
        (grpc("grpc_server_handled_total", "Range", ",grpc_code=\"InvalidArgument\""), 1.0),
        (grpc("grpc_server_handling_seconds_count", "Put", ""), 10.0),
        (format!("quorate_transport_connected{{node=\"{leader}\",peer=\"{follower}\"}}"), 1.0),
    ] {
        assert_eq!(seen.get(&series), Some(&value), "{series} in {seen:#?}");
    }
    for (series, value) in [
        (label("quorate_proposals_total", leader), 10.0),
        (label("quorate_proposal_duration_seconds_count", leader), 10.0),
        (label("quorate_commit_duration_seconds_count", leader), 10.0),
        (label("quorate_has_leader", leader), 1.0),
        (label("etcd_server_has_leader", leader), 1.0),
        (label("etcd_server_is_leader", leader), 1.0),
    ] {
        assert_eq!(seen.get(&series), Some(&value), "{series} in {seen:#?}");
    }
    let told = |series: String| seen.get(&series).copied().unwrap_or_else(|| panic!("{series} in {seen:#?}"));
    let commits = told(label("quorate_store_commit_duration_seconds_count", leader));
    assert!(commits >= 10.0, "each put was a commit of its own: {commits}");
    assert_eq!(told(label("etcd_disk_wal_fsync_duration_seconds_count", leader)), commits);
    let bucket = format!("quorate_store_commit_duration_seconds_bucket{{node=\"{leader}\",le=\"10\"}}");
    assert!(told(bucket) >= 1.0, "a histogram, not a summary");
    let above = |series: String, bound: f64| {
        let value = seen.get(&series).copied().unwrap_or_default();
        assert!(value > bound, "{series} is {value} in {seen:#?}");
    };
    if cfg!(target_os = "linux") {
        above("process_resident_memory_bytes".into(), 1e6);
        above("process_open_fds".into(), 5.0);
        above("process_start_time_seconds".into(), 1e9);
    }
    above(format!("quorate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 0.0);
    above(
        format!(
            "quorate_transport_sent_bytes_total{{node=\"{leader}\",peer=\"{follower}\",class=\"append\"}}"
        ),
        0.0,
    );
    above(
        format!("etcd_network_peer_sent_bytes_total{{node=\"{leader}\",To=\"{follower}\",class=\"append\"}}"),
        0.0,
    );

    // Whatever is shown has a name that is known, and a node that was stopped can be started again: its port is free.
    let known: BTreeSet<&str> =
        all().map(|metric| metric.name).chain(etcd::ALL.iter().map(|alias| alias.name)).collect();
    for series in seen.keys() {
        let name = series.split('{').next().unwrap();
        assert!(known.contains(base(name)), "{name} is not listed");
    }
    let node = &mut cluster.nodes[0];
    node.stop("TERM");
    node.start();
    until("it serves metrics again", Duration::from_secs(30), async || {
        TcpStream::connect(("127.0.0.1", cluster.nodes[0].port + 2)).is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_port_in_use_is_refused_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let output = common::quorate()
        .args(["serve", "--id", "1", "--cluster", "00c0ffee00c0ffee", "--bootstrap", "--data"])
        .arg(dir.path().join("store"))
        .args(["--listen-client", "127.0.0.1:0", "--metrics", &format!("127.0.0.1:{port}")])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("error: can't serve metrics on TCP 127.0.0.1:{port}: ")), "{error}");
    assert!(!dir.path().join("store").exists(), "nothing was made");
}

/// The name of a metric, without what Prometheus adds for a histogram.
fn base(name: &str) -> &str {
    let suffixes = ["_bucket", "_sum", "_count"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// How the page shows a metric.
fn row(metric: &Metric) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = match metric.unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        _ => "",
    };
    let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    format!("| `{}` | {kind} | {unit} | {labels} | {} |", metric.name, metric.help)
}

fn alias_row(alias: &etcd::Alias) -> String {
    let only = alias.only.map_or_else(String::new, |(label, value)| format!("{{{label}=\"{value}\"}}"));
    let label =
        alias.label.map_or_else(String::new, |(ours, theirs)| format!(", `{ours}` is `{theirs}` there"));
    format!("| `{}` | `{}{only}`{label} |", alias.name, alias.of.name)
}

#[test]
fn the_page_lists_all_metrics_and_no_others() {
    let page = fs::read_to_string(docs().join("metrics.md")).unwrap();
    let shown: BTreeSet<String> =
        page.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let expected: BTreeSet<String> = all().map(row).chain(etcd::ALL.iter().map(alias_row)).collect();
    let missing: Vec<_> = expected.difference(&shown).collect();
    let strange: Vec<_> = shown.difference(&expected).collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "docs/metrics.md lacks\n{}\nand has, which is nowhere else,\n{}",
        join(&missing),
        join(&strange),
    );
    // And so do the alerts, which are no rows.
    for name in words(&page) {
        assert!(is_known(&name), "docs/metrics.md speaks of {name}, which there is not");
    }
}

fn join(lines: &[&String]) -> String {
    lines.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n")
}

/// Whatever looks like the name of one of our metrics.
fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| {
            ["quorate_", "grpc_server_", "process_", "etcd_"].iter().any(|prefix| word.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect()
}

fn is_known(name: &str) -> bool {
    let metric = all().find(|metric| metric.name == name || metric.name == base(name));
    let histogram = metric.is_some_and(|metric| metric.kind == Kind::Histogram);
    match metric {
        // A name with a suffix is a histogram's.
        Some(metric) => metric.name == name || histogram,
        None => etcd::ALL.iter().any(|alias| alias.name == base(name)),
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = fs::read_to_string(docs().join("grafana/quorate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let variables: BTreeSet<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert!(variables.contains("datasource") && variables.contains("node"), "{variables:?}");

    let labels: BTreeSet<&str> = all()
        .flat_map(|metric| metric.labels.iter().copied())
        .chain(["le", "instance", "job", "group"])
        .collect();
    let mut ids = BTreeSet::new();
    let mut expressions = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id: {panel}");
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            expressions += 1;
            let names = words(expression);
            assert!(!names.is_empty(), "{expression}");
            for name in names.iter().filter(|name| !labels.contains(name.as_str())) {
                assert!(is_known(name), "{name} in {expression}");
            }
            for label in labels_in(expression) {
                assert!(labels.contains(label.as_str()), "{label} in {expression}");
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
    assert!(expressions > 20, "{expressions}");
}

/// The labels that an expression chooses by, or sums over.
fn labels_in(expression: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for part in expression.split("by (").skip(1) {
        let list = part.split(')').next().unwrap();
        labels.extend(list.split(',').map(|label| label.trim().to_owned()));
    }
    for part in expression.split('{').skip(1) {
        let matchers = part.split('}').next().unwrap();
        labels.extend(
            matchers.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap().trim().to_owned()),
        );
    }
    labels
}
