//! Short runs of every scenario. They count violations, elections and refusals, and no milliseconds: a busy machine may be
//! slow. The long ones, with limits in milliseconds too, are run by `.ci/hosts`.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use quorate_hosts::sandbox::Sandbox;
use serde_json::Value;

/// More than this, and something is stuck.
const LIMIT: Duration = Duration::from_secs(300);

/// One at a time: each has three nodes and their clients on a machine that may be small.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn partitions_delay_loss_and_signals_leave_no_client_with_a_wrong_answer() {
    let args = ["nemesis", "--seconds", "14", "--least", "1500", "--most", "2500", "--calm", "700"];
    let Some(found) = run(&args) else { return };
    assert!(found["fault_seconds"].as_f64().unwrap() >= 14.0);
    let verdict = &found["verdict"];
    assert!(verdict["linearizable"].as_u64().unwrap() > 10, "too little was done to be judged: {verdict}");
    assert!(verdict["violations"].as_array().unwrap().is_empty() && verdict["undecided"] == 0);
    // The faults were there: no link was cut without a packet having met it.
    let strikes = found["strikes"].as_array().unwrap();
    let cuts = [
        "isolate-leader",
        "isolate-follower",
        "halves",
        "cut-pair",
        "leader-mute",
        "leader-deaf",
        "flapping",
    ];
    if strikes.iter().any(|strike| cuts.contains(&strike["kind"].as_str().unwrap())) {
        assert!(found["traffic"]["cut"].as_u64().unwrap() > 0, "{found}");
    }
    assert!(found["traffic"]["passed"].as_u64().unwrap() > 1_000, "{found}");
}

#[test]
fn five_nodes_too() {
    let args =
        ["nemesis", "--nodes", "5", "--seconds", "4", "--least", "1500", "--most", "2000", "--calm", "700"];
    let Some(found) = run(&args) else { return };
    assert_eq!(found["nodes"], 5);
    assert!(found["verdict"]["linearizable"].as_u64().unwrap() > 0, "{}", found["verdict"]);
}

#[test]
fn a_rolling_restart_fails_no_request_but_those_that_can_be_sent_again() {
    let Some(found) = run(&["rolling", "--rounds", "1"]) else { return };
    assert_eq!(found["restarts"], 3);
    assert!(found["not_retriable"].as_array().unwrap().is_empty(), "{found}");
    assert!(found["verdict"]["linearizable"].as_u64().unwrap() > 0);
}

#[test]
fn more_than_can_be_done_is_refused_as_overload_and_deposes_nobody() {
    // Small values: it is not the bound on bytes that refuses them.
    let args = ["overload", "--seconds", "10", "--times", "4", "--find", "4", "--value-size", "128"];
    let Some(found) = run(&args) else { return };
    assert!(found["overloaded"].as_u64().unwrap() > 0 && found["done"].as_f64().unwrap() > 0.0, "{found}");
}

#[test]
fn a_snapshot_on_its_way_causes_no_election_and_no_wrong_answer() {
    let Some(found) = run(&["snapshot", "--mib", "24", "--runs", "1"]) else { return };
    assert_eq!(found["flights"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["compared"]["elections"], 0, "{found}");
    assert!(found["verdict"]["linearizable"].as_u64().unwrap() > 0, "{found}");
}

#[test]
fn a_slow_node_causes_no_election_and_no_wrong_answer() {
    let Some(found) = run(&["slow", "--runs", "1", "--millis", "1200"]) else { return };
    let compared = found["compared"].as_array().unwrap();
    assert_eq!(compared.len(), 4, "{found}");
    for one in compared {
        assert_eq!(one["elections"], 0, "{one}");
        assert!(one["disturbed"]["per_second"].as_f64().unwrap() > 0.0, "{one}");
    }
}

#[test]
fn a_disk_is_as_slow_as_it_is_told_to_be() {
    // Without that, the runs with a slow disk would show nothing.
    let Some(found) = run(&["slow", "--what", "every-disk", "--runs", "1", "--millis", "2000"]) else {
        return;
    };
    let p50 = |which: &str| found["compared"][0][which]["p50_ms"].as_f64().unwrap();
    assert!(p50("disturbed") >= 50.0 && p50("disturbed") > p50("control"), "{found}");
}

/// Runs it to its end; its JSON, if namespaces are to be had. The test fails unless all was well.
fn run(args: &[&str]) -> Option<Value> {
    let sandbox = match Sandbox::find() {
        Ok(sandbox) => sandbox,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let quorate = quorate();
    let mut command = sandbox.command(Path::new(env!("CARGO_BIN_EXE_quorate-hosts")));
    command
        .args(args)
        .arg("--json")
        .arg("--quorate")
        .arg(quorate)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It ends when its stdin does: with this process, or when it takes too long.
    let stdin = child.stdin.take().unwrap();
    let (ended, waiting) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _ended = waiting.recv_timeout(LIMIT);
        drop(stdin);
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{args:?}: {}\n{said}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    Some(serde_json::from_str(&text).unwrap())
}

/// The program `quorate`, as its sources are now: cargo builds it for the tests of its own package, and so has built it if
/// all tests are run; if only these are, it is built here.
fn quorate() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let ours = Path::new(env!("CARGO_BIN_EXE_quorate-hosts"));
        let program = ours.with_file_name("quorate");
        if !is_fresh(&program) {
            let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
            let built = Command::new(env!("CARGO"))
                .args(["build", "-q", "-p", "quorate-coord", "--bin", "quorate", "--profile", profile])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status();
            assert!(built.unwrap().success(), "quorate does not compile");
        }
        assert!(program.exists(), "cargo has not built {}", program.display());
        program
    })
}

/// Is it there, and younger than all that it was made from? cargo has written beside it what that was.
fn is_fresh(program: &Path) -> bool {
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let (Ok(built), Ok(from)) = (age(program), fs::read_to_string(program.with_extension("d"))) else {
        return false;
    };
    let sources = from.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().all(|source| age(Path::new(source)).is_ok_and(|source| source <= built))
}
