//! What thousands of groups in one store cost: to create, to open, to recover, to write, to keep in memory, to remove. Each number
//! of groups in processes of their own, so that their memory is their own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use quorate_core::{GroupId, Index, Membership, NodeId, Store, Write};
use quorate_storage_redb::{Options, RedbStore};
use serde_json::{Value, json};

use super::{
    folder::FILE,
    minted::Mint,
    process::{Size, resident_kib},
    stored::IDENTITY,
};

/// What thousands of groups cost.
#[derive(Parser, Debug)]
struct Args {
    /// Where the files are made: on the disk that is meant.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many groups.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    groups: Vec<u64>,
    /// Memory for redb's cache, in MiB: little, so that what is left is the groups'.
    #[arg(long, default_value_t = 1)]
    cache: usize,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What a child does: not for the command line.
#[derive(Subcommand, Debug)]
enum Child {
    /// Makes the groups, and writes to them.
    #[command(hide = true)]
    Make { dir: PathBuf, groups: u64 },
    /// Opens them, and removes some.
    #[command(hide = true)]
    Open { dir: PathBuf },
}

/// So many are created, recovered and removed one by one.
const FEW: u64 = 100;
/// So many groups are written to in one commit.
const WRITTEN: u64 = 1_000;
/// So often; the median counts.
const TIMES: usize = 9;

/// Runs what the command line asks for.
///
/// # Errors
/// If a file can't be made, written or read.
pub fn main() -> Result<()> {
    let args = Args::parse();
    let options = Options::default().cache_bytes(args.cache << 20);
    match &args.child {
        None => parent(&args),
        Some(Child::Make { dir, groups }) => make(dir, *groups, options),
        Some(Child::Open { dir }) => open(dir, options),
    }
}

fn parent(args: &Args) -> Result<()> {
    let mut reports = Vec::new();
    for groups in &args.groups {
        let dir = tempfile::tempdir_in(&args.dir)?;
        let path = dir.path().display().to_string();
        let made = run(args, &["make", &path, &groups.to_string()])?;
        let size = Size::of(&dir.path().join(FILE))?;
        let opened = run(args, &["open", &path])?;
        reports.push(json!({
            "bench": "groups", "groups": groups, "file_bytes": size.len, "allocated_bytes": size.allocated,
            "made": made, "opened": opened,
        }));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
        return Ok(());
    }
    print!("{:<58}", "groups");
    args.groups.iter().for_each(|groups| print!("{groups:>12}"));
    println!();
    for (part, name, what) in [
        ("made", "create_many_ms", "create all at once, ms"),
        ("made", "create_one_us", "create one more, us"),
        ("made", "recover_many_ms", "recover all at once, ms"),
        ("made", "write_many_ms", "one commit of a write to each of 1,000 groups, ms"),
        ("made", "write_each_ms", "1,000 commits of a write to one group each, ms"),
        ("opened", "open_ms", "open, ms"),
        ("opened", "recover_many_ms", "recover all at once after it, ms"),
        ("opened", "recover_one_us", "recover one, us"),
        ("opened", "bytes_a_group", "memory after that, bytes a group"),
        ("opened", "remove_one_us", "remove one, us"),
    ] {
        print!("{what:<58}");
        reports.iter().for_each(|it| print!("{:>12.1}", it[part][name].as_f64().unwrap_or(f64::NAN)));
        println!();
    }
    print!("{:<58}", "the file, bytes a group");
    for report in &reports {
        let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
        print!("{:>12.0}", number("file_bytes") / number("groups"));
    }
    println!();
    Ok(())
}

/// Runs a child, and gives what it says.
fn run(args: &Args, child: &[&str]) -> Result<Value> {
    let cache = args.cache.to_string();
    let output = Command::new(std::env::current_exe()?).args(["--cache", &cache]).args(child).output()?;
    if !output.status.success() {
        bail!("{child:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn make(dir: &Path, groups: u64, options: Options) -> Result<()> {
    let three = Membership::of_voters([1, 2, 3].map(NodeId));
    let mut store = RedbStore::create_with(options, dir, IDENTITY, &[])?;
    let all: Vec<_> = (0..groups).map(|group| (GroupId(group), three.clone())).collect();
    let (create_many, ()) = timed(|| Ok(store.create_many(&all)?))?;
    let (create_few, ()) =
        timed(|| (groups..groups + FEW).try_for_each(|group| Ok(store.create(GroupId(group), &three)?)))?;
    let ids = store.groups()?;
    let (recover_many, recovered) = timed(|| Ok(store.recover_many(&ids)?))?;
    let minted = ids.iter().zip(&recovered).map(|(id, it)| Mint::new(*id, it.incarnation, Index(0)));
    let mut mints: Vec<Mint> = minted.take(WRITTEN as usize).collect();
    let (mut many, mut each) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let writes = mints.iter_mut().map(|mint| mint.entries(1, 256)).collect::<Result<Vec<Write>>>()?;
        many.push(timed(|| Ok(store.commit(&writes)?))?.0);
    }
    // Fewer of these: they take a while.
    for _ in 0..TIMES / 3 {
        let writes = mints.iter_mut().map(|mint| mint.entries(1, 256)).collect::<Result<Vec<Write>>>()?;
        let commit = |write| Ok(store.commit(std::slice::from_ref(write))?);
        each.push(timed(|| writes.iter().try_for_each(commit))?.0);
    }
    store.close()?;
    let report = json!({
        "create_many_ms": create_many * 1e3,
        "create_one_us": create_few * 1e6 / FEW as f64,
        "recover_many_ms": recover_many * 1e3,
        "write_many_ms": median(many) * 1e3,
        "write_each_ms": median(each) * 1e3,
    });
    println!("{report}");
    Ok(())
}

fn open(dir: &Path, options: Options) -> Result<()> {
    let before = resident_kib()?;
    let (open, mut store) = timed(|| Ok(RedbStore::open_with(options, dir, IDENTITY)?))?;
    let ids = store.groups()?;
    let (recover_many, recovered) = timed(|| Ok(store.recover_many(&ids)?))?;
    drop(recovered);
    let after = resident_kib()?;
    let few = ids.get(..FEW as usize).unwrap_or(&ids);
    let (recover_few, ()) = timed(|| few.iter().try_for_each(|id| Ok(store.recover(*id).map(drop)?)))?;
    let (remove_few, ()) = timed(|| few.iter().try_for_each(|id| Ok(store.remove(*id)?)))?;
    let report = json!({
        "open_ms": open * 1e3,
        "recover_many_ms": recover_many * 1e3,
        "recover_one_us": recover_few * 1e6 / few.len() as f64,
        "idle_kib": before,
        "resident_kib": after,
        "bytes_a_group": (after.saturating_sub(before) << 10) as f64 / ids.len() as f64,
        "remove_one_us": remove_few * 1e6 / few.len() as f64,
    });
    println!("{report}");
    Ok(store.close()?)
}

/// Seconds that it takes.
fn timed<T>(what: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let result = what()?;
    Ok((start.elapsed().as_secs_f64(), result))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
