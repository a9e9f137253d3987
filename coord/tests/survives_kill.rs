//! Real input, real processes, SIGKILL: nothing that was acknowledged is lost, and all nodes end with the same.
//!
//! Every installed package's name and version, and as many available ones as make up 10,000 keys, are written through
//! concurrent clients to all nodes of a three-node cluster. Meanwhile nodes are killed at random moments, the leader
//! above all, one or several at a time, and started again. Then every node is asked for everything.
#![cfg(feature = "server")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use common::{Cluster, Node, until};
use quorate_coord::pb::{
    etcdserverpb::{
        HashKvRequest, HashRequest, PutRequest, RangeRequest, kv_client::KvClient,
        maintenance_client::MaintenanceClient,
    },
    mvccpb::KeyValue,
};
use tonic::{Status, transport::Channel};

/// At least so many different keys.
const KEYS: usize = 10_000;

const WRITERS: u64 = 24;

/// The killing goes on for at least so long.
const CHAOS: Duration = Duration::from_secs(25);

/// And until there were so many kills, of the leader above all.
const KILLS: usize = 8;
const LEADER_KILLS: usize = 3;

/// More than this, and something is stuck.
const LIMIT: Duration = Duration::from_secs(120);

/// A put that has no answer within this is given up, its outcome unknown.
const PUT_TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_sigkill_on_every_node() {
    let seed = std::env::var("QUORATE_TEST_SEED").map_or_else(
        |_| {
            u64::from(std::process::id()) << 32
                | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
        },
        |text| text.parse().expect("QUORATE_TEST_SEED is a number"),
    );
    println!("seed {seed}: repeat the plan (not the timing) with QUORATE_TEST_SEED={seed}");
    let (rows, source) = rows();
    println!("{} rows of {source}", rows.len());

    let mut cluster = Cluster::start(3).await;
    let started = Instant::now();
    let progress = Arc::new(Progress::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|id| {
            let rows = rows.iter().filter(|(key, _)| writer_of(key) == id).cloned().collect();
            let clients = cluster.nodes.iter().map(Node::kv).collect();
            tokio::spawn(write(rows, clients, Random(seed ^ (id + 1)), progress.clone()))
        })
        .collect();

    let (kills, leader_kills) = kill_and_restart(&mut cluster, Random(seed), &progress, started).await;
    progress.stop.store(true, Relaxed);
    let mut ledger = Ledger::default();
    for writer in writers {
        ledger.0.extend(writer.await.unwrap().0);
    }
    let took = started.elapsed();
    let count = |of: fn(&History) -> usize| ledger.0.values().map(of).sum::<usize>();
    let (acked, unknown) = (count(|history| history.acked.len()), count(|history| history.unknown.len()));
    println!(
        "{acked} puts of {} keys acknowledged in {took:.1?} ({:.0} a second), {unknown} of unknown outcome, {} refused; \
         {kills} kills, {leader_kills} of them of the leader",
        ledger.0.len(),
        acked as f64 / took.as_secs_f64(),
        count(|history| history.refused.len()),
    );
    assert!(ledger.0.len() >= KEYS, "too few keys: {}", ledger.0.len());
    assert!(kills >= KILLS && leader_kills >= LEADER_KILLS);
    assert!(
        ledger.0.values().all(|history| !history.acked.is_empty()),
        "every row was acknowledged in the end"
    );
    ledger.no_revision_was_given_twice();

    // Everything is there, on every node, by a linearizable read.
    let mut read = Vec::new();
    for node in &cluster.nodes {
        let found = read_all(node, false).await;
        ledger.check(&found, node.id);
        read.push(found);
    }
    assert!(read.iter().all(|found| *found == read[0]), "the nodes differ");
    until("the nodes' digests agree", Duration::from_secs(20), async || digests(&cluster).await.len() == 1)
        .await;
    // And by what each node has of its own.
    for node in &cluster.nodes {
        assert_eq!(read_all(node, true).await, read[0], "node {}", node.id);
    }
    println!(
        "all {} keys read back from each of {} nodes; digests agree",
        read[0].len(),
        cluster.nodes.len()
    );
}

/// Kills and starts nodes until there was enough of it and every row was written. At the end all run, with a leader.
async fn kill_and_restart(
    cluster: &mut Cluster,
    mut random: Random,
    progress: &Progress,
    started: Instant,
) -> (usize, usize) {
    let (mut kills, mut leader_kills) = (0, 0);
    loop {
        assert!(started.elapsed() < LIMIT, "stuck: {} writers have not written their rows", progress.left());
        let enough = started.elapsed() >= CHAOS && kills >= KILLS && leader_kills >= LEADER_KILLS;
        if enough && progress.left() == 0 {
            break;
        }
        random.pause(200, 1_500).await;
        let leader = cluster.leader().await;
        let leader = leader.map(|id| usize::try_from(id - 1).unwrap());
        let victims: BTreeSet<usize> = match (random.below(100), leader) {
            (0..50, Some(leader)) => [leader].into(),
            (0..75, _) => [random.index(3)].into(),
            (75..90, _) => [random.index(3), leader.unwrap_or(0)].into(),
            (_, _) => [0, 1, 2].into(),
        };
        for victim in &victims {
            cluster.nodes[*victim].kill();
            kills += 1;
            leader_kills += usize::from(leader == Some(*victim));
        }
        for victim in victims {
            random.pause(20, 600).await;
            cluster.nodes[victim].start();
        }
        if random.below(4) > 0 {
            cluster.wait_for_leader().await;
        }
    }
    cluster.wait_for_leader().await;
    (kills, leader_kills)
}

/// Writes every row, and then again with other values, until told to stop.
async fn write(
    rows: Vec<(String, String)>,
    mut clients: Vec<KvClient<Channel>>,
    mut random: Random,
    progress: Arc<Progress>,
) -> Ledger {
    let mut ledger = Ledger::default();
    progress.begin();
    for round in 0.. {
        for (key, version) in &rows {
            if round > 0 && progress.stop.load(Relaxed) {
                return ledger;
            }
            let history = ledger.0.entry(key.clone()).or_default();
            for attempt in 0.. {
                assert!(attempt < 1_000, "{key} can't be written");
                let value = format!("{version} round {round} attempt {attempt}");
                let client = random.index(clients.len());
                let put = PutRequest {
                    key: key.clone().into(),
                    value: value.clone().into(),
                    ..PutRequest::default()
                };
                match tokio::time::timeout(PUT_TIMEOUT, clients[client].put(put)).await {
                    Ok(Ok(answer)) => {
                        let revision = answer.into_inner().header.unwrap().revision;
                        history.acked.push((value, revision));
                        break;
                    }
                    Ok(Err(status)) if certainly_refused(&status) => history.refused.push(value),
                    Ok(Err(_)) | Err(_) => history.unknown.push(value),
                }
                random.pause(20, 200).await;
            }
        }
        if round == 0 {
            progress.end();
        }
    }
    ledger
}

/// What the server says when it has done nothing, and will not: it is held to that.
fn certainly_refused(status: &Status) -> bool {
    ["etcdserver: no leader", "etcdserver: too many requests"].contains(&status.message())
}

/// What was attempted and acknowledged, by key.
#[derive(Debug, Default)]
struct Ledger(BTreeMap<String, History>);

/// One key's, all of one writer, which waits for one put to end before it begins the next.
#[derive(Debug, Default)]
struct History {
    /// Values with the revisions at which they were written.
    acked: Vec<(String, i64)>,
    /// Values that may have been written, or may yet be.
    unknown: Vec<String>,
    /// Values that were not, and never will be.
    refused: Vec<String>,
}

impl Ledger {
    /// Each put that is acknowledged has a revision of its own, and one key's go up.
    fn no_revision_was_given_twice(&self) {
        let mut seen = BTreeMap::new();
        for (key, history) in &self.0 {
            let revisions: Vec<i64> = history.acked.iter().map(|(_, revision)| *revision).collect();
            assert!(revisions.is_sorted_by(|a, b| a < b), "{key}: {history:?}");
            for revision in revisions {
                if let Some(other) = seen.insert(revision, key) {
                    panic!("revision {revision} was acknowledged to {key} and to {other}");
                }
            }
        }
    }

    /// Is what a node has what it may have? The newest acknowledged value, or one of unknown outcome that was written
    /// after it; no key more or less.
    fn check(&self, found: &BTreeMap<String, KeyValue>, node: u64) {
        for (key, history) in &self.0 {
            let Some(kv) = found.get(key) else { panic!("node {node} has lost {key}: {history:?}") };
            let value = String::from_utf8(kv.value.to_vec()).unwrap();
            let (newest, revision) = history.acked.last().unwrap();
            if kv.mod_revision == *revision {
                assert_eq!(value, *newest, "node {node}: {key}: {history:?}");
            } else {
                assert!(kv.mod_revision > *revision, "node {node} has an old {key}: {kv:?}, {history:?}");
                assert!(history.unknown.contains(&value), "node {node}: {key}: {kv:?}, {history:?}");
            }
            let written = usize::try_from(kv.version).unwrap();
            let (least, most) = (history.acked.len(), history.acked.len() + history.unknown.len());
            assert!(
                (least..=most).contains(&written),
                "node {node}: {key} was written {written} times: {history:?}"
            );
        }
        let unexpected: Vec<_> = found.keys().filter(|key| !self.0.contains_key(*key)).collect();
        assert!(unexpected.is_empty(), "node {node} has what nobody wrote: {unexpected:?}");
    }
}

/// All keys of a node, page by page, at one revision. Tried again while it has no leader.
async fn read_all(node: &Node, serializable: bool) -> BTreeMap<String, KeyValue> {
    let mut client = node.kv();
    let (mut all, mut key, mut revision) = (BTreeMap::new(), vec![0], 0);
    loop {
        let request = RangeRequest {
            key: key.clone().into(),
            range_end: vec![0].into(),
            limit: 1_000,
            revision,
            serializable,
            ..RangeRequest::default()
        };
        let mut page = None;
        until(&format!("node {} answers a read", node.id), Duration::from_secs(20), async || {
            page = client.range(request.clone()).await.ok();
            page.is_some()
        })
        .await;
        let page = page.unwrap().into_inner();
        revision = page.header.unwrap().revision.max(revision);
        for kv in page.kvs {
            key = [&kv.key[..], &[0]].concat();
            all.insert(String::from_utf8(kv.key.to_vec()).unwrap(), kv);
        }
        if !page.more {
            return all;
        }
    }
}

/// What the nodes' digests are; one, if they agree.
async fn digests(cluster: &Cluster) -> BTreeSet<(i64, u32, u32)> {
    let mut digests = BTreeSet::new();
    for node in &cluster.nodes {
        let mut client = MaintenanceClient::new(node.channel());
        let kv = client.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
        let all = client.hash(HashRequest {}).await.unwrap().into_inner();
        digests.insert((kv.hash_revision, kv.hash, all.hash));
    }
    digests
}

/// How far the writers are, and whether they are to stop.
#[derive(Debug, Default)]
struct Progress {
    busy: AtomicUsize,
    begun: AtomicUsize,
    stop: AtomicBool,
}

impl Progress {
    fn begin(&self) {
        self.busy.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
    }

    fn end(&self) {
        self.busy.fetch_sub(1, Relaxed);
    }

    /// How many have not yet written each row once.
    fn left(&self) -> usize {
        WRITERS as usize - self.begun.load(Relaxed) + self.busy.load(Relaxed)
    }
}

/// Names and versions of packages, and where they are from.
fn rows() -> (Vec<(String, String)>, String) {
    let installed = output("dpkg-query", &["-W", "-f", "${Package}\t${Version}\n"]);
    let mut rows: Vec<(String, String)> = installed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(package, version)| (format!("package/{package}"), version.to_owned()))
        .collect();
    let from_dpkg = rows.len();
    let mut keys: BTreeSet<String> = rows.iter().map(|(key, _)| key.clone()).collect();
    let available = output("apt-cache", &["dumpavail"]);
    let mut package = None;
    for line in available.lines() {
        if keys.len() >= KEYS {
            break;
        }
        match (line.split_once(": "), &package) {
            (Some(("Package", name)), _) => package = Some(format!("package/{name}")),
            (Some(("Version", version)), Some(key)) if keys.insert(key.clone()) => {
                rows.push((key.clone(), version.to_owned()));
            }
            _ => {}
        }
    }
    let from_apt = rows.len() - from_dpkg;
    let generated = KEYS.saturating_sub(keys.len());
    rows.extend((0..generated).map(|n| (format!("generated/{n:05}"), format!("1.{n}"))));
    let source =
        format!("dpkg-query ({from_dpkg}), apt-cache dumpavail ({from_apt}), generated ({generated})");
    (rows, source)
}

/// What a program prints; nothing, if there is no such program.
fn output(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            println!("no {program} here ({error})");
            String::new()
        }
    }
}

/// A key always has the same writer, so that its puts follow each other.
fn writer_of(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() % WRITERS
}

/// splitmix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    async fn pause(&mut self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(from + self.below(to - from))).await;
    }
}
