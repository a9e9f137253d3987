//! A process that is killed with SIGKILL in the middle of its commits and snapshots: what it had acknowledged is there.

mod common;

use std::{
    env,
    io::{BufRead, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{IDENTITY, contents::Files, on_disk::Redb};
use quorate_runtime_tokio::conformance::{self, Closures, Rng};
use quorate_storage_redb::{Options, RedbStore};

const DIR: &str = "QUORATE_TEST_KILL_DIR";
const SEED: &str = "QUORATE_TEST_KILL_SEED";
/// More than any of them comes to.
const COMMITS: usize = 400;

fn options(seed: u64) -> Options {
    Options::default().two_phase(seed.is_multiple_of(4))
}

/// Not a test of its own: what the process does that is killed.
#[test]
fn child() {
    let (Ok(dir), Ok(seed)) = (env::var(DIR), env::var(SEED)) else {
        return;
    };
    let seed: u64 = seed.parse().unwrap();
    let place = PathBuf::from(dir);
    let on_files = Closures::new(
        |groups| {
            let store = RedbStore::create_with(options(seed), &place, IDENTITY, groups).unwrap();
            (place.clone(), store)
        },
        |place: &PathBuf| RedbStore::open_with(options(seed), place, IDENTITY).unwrap(),
    )
    .resume_slack(64 << 10);
    println!();
    conformance::work(&on_files, seed, COMMITS, |done| {
        println!("done {done}");
        std::io::stdout().flush().unwrap();
    });
    panic!("it should have been killed by now");
}

#[test]
fn what_a_killed_process_had_acknowledged_is_there() {
    let mut total = 0;
    for seed in 0..16 {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Rng::new(seed);
        let kill_after = rng.below(120) as usize;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut told = lines.filter_map(|line| line.strip_prefix("done ")?.parse::<usize>().ok());
        let mut last = told.by_ref().take(kill_after).last();
        // In the middle of something.
        thread::sleep(Duration::from_micros(rng.below(1_500)));
        child.kill().unwrap();
        child.wait().unwrap();
        last = told.last().or(last);
        total += last.unwrap_or(0);
        let left = Files::of_dir(dir.path()).disk();
        conformance::check_killed(&Redb(options(seed)), &left, seed, COMMITS, last);
    }
    assert!(total > 300, "only {total} calls had returned");
    println!("{total} calls had returned before the kills");
}
