//! How long a store takes to open and its group to recover, and in how much memory: after a kill and after a close, with the
//! page cache warm and cold. Each time in a process of its own, so that its peak memory is its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, exit},
    time::Instant,
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use quorate_core::Store;
use quorate_storage_redb::{Options, RedbStore};
use serde_json::{Value, json};

use super::{
    Case,
    counting::Counts,
    folder::{FILE, Folder},
    process::{Size, cool, disk_read, peak_kib, warm},
    stored::{IDENTITY, Stored},
    turns::Variant,
};

/// How long a store takes to open.
#[derive(Parser, Debug)]
struct Args {
    /// Where the files are made: on the disk that is meant.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Payload in the log, in MiB; the file is half as large again, or twice for small commits.
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// What a commit is, as entries,bytes,groups. With one small entry a commit, make the log in memory (`--made-in`).
    #[arg(long, value_parser = Case::parse, default_value = "100,256,1")]
    case: Case,
    /// Where the log is made before it is moved to `--dir`, if not there.
    #[arg(long)]
    made_in: Option<PathBuf>,
    /// Memory for redb's cache, in MiB.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    cache: Vec<usize>,
    /// Times that each is measured; the fastest counts.
    #[arg(long, default_value_t = 2)]
    times: usize,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What a child does: not for the command line.
#[derive(Subcommand, Debug)]
enum Child {
    /// Makes a log and stops without closing it.
    #[command(hide = true)]
    Make { dir: PathBuf },
    /// Opens and recovers it.
    #[command(hide = true)]
    Open { dir: PathBuf, cache: usize, verify: usize, leave: Leave },
}

/// How a child leaves the store.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Leave {
    /// As a kill does.
    Killed,
    Closed,
}

/// Runs what the command line asks for.
///
/// # Errors
/// If a file can't be made, written or read.
pub fn main() -> Result<()> {
    let args = Args::parse();
    match &args.child {
        None => parent(&args),
        Some(Child::Make { dir }) => make(dir, args.case, args.mib),
        Some(Child::Open { dir, cache, verify, leave }) => open(dir, cache << 20, *verify > 0, *leave),
    }
}

fn parent(args: &Args) -> Result<()> {
    let dir = tempfile::tempdir_in(&args.dir)?;
    let made = tempfile::tempdir_in(args.made_in.as_ref().unwrap_or(&args.dir))?;
    run(args, &["make", &made.path().display().to_string()])?;
    let (from, path) = (made.path().join(FILE), dir.path().join(FILE));
    if fs::rename(&from, &path).is_err() {
        // Holes stay holes: redb leaves some, and they would take up the disk.
        let copied = Command::new("cp").arg("--sparse=always").args([&from, &path]).status()?;
        if !copied.success() {
            bail!("the log could not be moved to {}", path.display());
        }
        fs::remove_file(from)?;
    }
    let mut rows = Vec::new();
    for (stop, leave, verify) in [
        ("after a kill", Leave::Killed, true),
        ("after a close", Leave::Closed, true),
        ("after a close, unverified", Leave::Closed, false),
    ] {
        let child = |cache: usize| {
            let leave = if leave == Leave::Killed { "killed" } else { "closed" };
            let dir = dir.path().display().to_string();
            run(args, &["open", &dir, &cache.to_string(), &usize::from(verify).to_string(), leave])
        };
        // Leaves it as the next ones are to find it.
        child(16)?;
        for &cache in &args.cache {
            for cold in [false, true] {
                let mut best: Option<Value> = None;
                for _ in 0..args.times.max(1) {
                    if cold { cool(&path) } else { warm(&path) }?;
                    let found = child(cache)?;
                    let took = |row: &Value| row["total_ms"].as_f64().unwrap_or(f64::MAX);
                    if best.as_ref().is_none_or(|best| took(&found) < took(best)) {
                        best = Some(found);
                    }
                }
                let mut row = best.unwrap_or_default();
                row["stop"] = stop.into();
                row["page_cache"] = if cold { "cold" } else { "warm" }.into();
                row["cache_mib"] = cache.into();
                rows.push(row);
            }
        }
    }
    let size = Size::of(&path)?;
    if args.json {
        let report = json!({
            "bench": "open", "log_mib": args.mib, "commit": args.case.to_string(),
            "file_bytes": size.len, "allocated_bytes": size.allocated, "rows": rows,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("open: {} MiB of log, {}; the file is {size}", args.mib, args.case);
    println!(
        "{:<26} {:>5} {:>6} | {:>8} {:>9} {:>8} {:>8} | {:>9} {:>9} | {:>9}",
        "", "page", "redb's", "open", "asked for", "memory", "recover", "asked for", "memory", "from disk"
    );
    println!(
        "{:<26} {:>5} {:>6} | {:>8} {:>9} {:>8} {:>8} | {:>9} {:>9} | {:>9}",
        "", "cache", "cache", "ms", "MiB", "peak MiB", "ms", "MiB", "peak MiB", "MiB"
    );
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<26} {:>5} {:>6} | {:>8.0} {:>9.0} {:>8.1} {:>8.0} | {:>9.0} {:>9.1} | {:>9.0}",
            row["stop"].as_str().unwrap_or_default(),
            row["page_cache"].as_str().unwrap_or_default(),
            row["cache_mib"].as_u64().unwrap_or_default(),
            number("open_ms"),
            number("open_read_mib"),
            number("open_peak_mib"),
            number("recover_ms"),
            number("recover_read_mib"),
            number("peak_mib"),
            number("disk_mib"),
        );
    }
    Ok(())
}

/// Runs a child, and gives what it says.
fn run(args: &Args, child: &[&str]) -> Result<Value> {
    let Case { entries, payload, groups } = args.case;
    let output = Command::new(std::env::current_exe()?)
        .args(["--mib", &args.mib.to_string(), "--case", &format!("{entries},{payload},{groups}")])
        .args(child)
        .output()?;
    if !output.status.success() {
        bail!("{child:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout)? })
}

fn make(dir: &Path, case: Case, mib: u64) -> Result<()> {
    let mut made = Stored::new(dir, case, Options::default(), false)?;
    let mut written = 0;
    while written < mib << 20 {
        made.prepare()?;
        made.commit()?;
        written += case.payload_bytes() as u64;
    }
    // Nothing is closed: the file is as a kill leaves it.
    exit(0)
}

fn open(dir: &Path, cache: usize, verify: bool, leave: Leave) -> Result<()> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let counts = Counts::default();
    let (before, disk) = (peak_kib()?, disk_read()?);
    let options = Options::default().cache_bytes(cache).verify_on_open(verify);
    let start = Instant::now();
    let mut store = RedbStore::open_on(options, Folder::new(dir, &counts, &Counts::default()), IDENTITY)?;
    let opened = start.elapsed();
    let (open_peak, open_read) = (peak_kib()?, counts.so_far());
    let groups = store.groups()?;
    store.recover_many(&groups)?;
    let total = start.elapsed();
    let peak = peak_kib()?;
    let recover_read = counts.so_far() - open_read;
    let report = json!({
        "open_ms": opened.as_secs_f64() * 1e3,
        "open_reads": open_read.reads,
        "open_read_mib": mib(open_read.read),
        "open_peak_mib": mib(open_peak << 10),
        "recover_ms": (total - opened).as_secs_f64() * 1e3,
        "recover_reads": recover_read.reads,
        "recover_read_mib": mib(recover_read.read),
        "total_ms": total.as_secs_f64() * 1e3,
        "idle_mib": mib(before << 10),
        "peak_mib": mib(peak << 10),
        "disk_mib": mib(disk_read()? - disk),
    });
    println!("{report}");
    if leave == Leave::Killed {
        exit(0);
    }
    Ok(store.close()?)
}
