//! A process that is killed with SIGKILL in the middle of its commits: what it had acknowledged is there.

mod common;

use std::{
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use common::{Change, IDENTITY, Model, Rng, read_log, voters};
use quorate_core::{GroupId, Membership, Store, Write};
use quorate_storage_redb::{Options, RedbStore};

const DIR: &str = "QUORATE_TEST_KILL_DIR";
const SEED: &str = "QUORATE_TEST_KILL_SEED";

fn groups() -> Vec<(GroupId, Membership)> {
    vec![(GroupId(0), voters(&[1, 2, 3])), (GroupId(1), voters(&[1]))]
}

/// The next commit, the same in both processes.
fn step(model: &mut Model, rng: &mut Rng) -> Vec<Write> {
    (0..=rng.below(3)).map(|_| model.write(GroupId(rng.below(2)), &Change::random(rng))).collect()
}

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
    let mut store = RedbStore::open_with(options(seed), Path::new(&dir), IDENTITY).unwrap();
    let mut model = Model::new(&groups());
    for (id, group) in &mut model.groups {
        let recovered = store.recover(*id).unwrap();
        group.incarnation = recovered.incarnation;
        group.next = 1;
        group.hard_state = recovered.hard_state;
        group.log = read_log(&store, *id, recovered.base.index, recovered.last).unwrap();
        (group.base, group.base_membership) = (recovered.base, recovered.base_membership);
    }
    let mut rng = Rng(seed);
    println!("\nready");
    for n in 0..100_000 {
        store.commit(&step(&mut model, &mut rng)).unwrap();
        println!("acknowledged {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn what_a_killed_process_had_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    drop(RedbStore::create(dir.path(), IDENTITY, &groups()).unwrap());
    let mut model = Model::new(&groups());
    let mut total = 0;
    for seed in 0..12 {
        let mut rng = Rng(seed);
        let kill_after = Rng(seed ^ 0xDEAD).below(40) as usize;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "ready"), "the child has not come to its work");
        let said = |line: &String| line.starts_with("acknowledged ");
        let mut acknowledged = lines.by_ref().filter(said).take(kill_after).count();
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged += lines.filter(said).count();
        total += acknowledged;

        // The child has recovered each group once.
        for group in model.groups.values_mut() {
            group.incarnation.0 += 1;
            group.next = 1;
        }
        for _ in 0..acknowledged {
            step(&mut model, &mut rng);
        }
        let mut one_more = model.clone();
        step(&mut one_more, &mut rng);

        let mut store = RedbStore::open_with(options(seed), dir.path(), IDENTITY).unwrap();
        let as_acknowledged = model.check(&mut store);
        if as_acknowledged.is_err() {
            // The check has recovered the first group at least; that is put right for the second look.
            drop(store);
            let mut store = RedbStore::open(dir.path(), IDENTITY).unwrap();
            for (id, group) in &mut one_more.groups {
                group.incarnation = store.recover(*id).unwrap().incarnation;
            }
            let result = one_more.check(&mut store);
            assert_eq!(
                result,
                Ok(()),
                "seed {seed}, {acknowledged} acknowledged; nor as acknowledged: {as_acknowledged:?}"
            );
            model = one_more;
        }
    }
    assert!(total > 50, "only {total} acknowledged");
}
