//! Signals that ask a node for something never end it. (SIGHUP is in `certificates.rs`; those that stop it are in `cli.rs`.)
#![cfg(feature = "server")]

mod common;

use std::time::Duration;

use common::{Cluster, signal, until};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_records_nothing_outlives_the_request_for_a_copy() {
    let mut cluster = Cluster::start(1).await;
    let node = &mut cluster.nodes[0];
    signal(node.pid(), "USR1");
    let says = "SIGUSR1: this node records nothing";
    until(says, LIMIT, async || node.log_text().contains(says)).await;
    assert!(node.runs());
    node.stop("TERM");
}

/// Which signals are caught is in `/proc`, so that nobody has to hit the moment in which a store is being opened.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_can_be_asked_for_while_the_store_is_being_opened() {
    use std::{fs, thread, time::Instant};

    const HANGUP: u64 = 1 << (1 - 1);
    const USER_1: u64 = 1 << (10 - 1);

    let caught = |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    let mut cluster = Cluster::make(1);
    let node = &mut cluster.nodes[0];
    let recording = node.dir.join("recording");
    node.start_with(&["--record", recording.to_str().unwrap()]);
    let deadline = Instant::now() + LIMIT;
    // From the moment on that certificates can be renewed, which is before the store is opened.
    while caught(node.pid()) & HANGUP == 0 {
        assert!(Instant::now() < deadline, "SIGHUP is never caught");
        thread::yield_now();
    }
    assert_ne!(caught(node.pid()) & USER_1, 0, "SIGUSR1 would end it");
    signal(node.pid(), "USR1");
    let copied = "the recording was copied";
    until(copied, LIMIT, async || node.log_text().contains(copied)).await;
    let mut names = fs::read_dir(&recording).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.any(|name| name.to_string_lossy().starts_with("dump-")));
    node.stop("TERM");
}
