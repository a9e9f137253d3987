//! Is the disk given back? What a file comes to when its log is compacted: all at once, and again and again.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use quorate_core::Index;
use quorate_storage_redb::Options;
use serde_json::{Value, json};

use super::{
    Case,
    counting::Io,
    folder::FILE,
    process::Size,
    stored::Stored,
    turns::{Variant, quantile},
};

/// What a file comes to when its log is compacted.
#[derive(Parser, Debug)]
struct Args {
    /// Where the files are made: on the disk that is meant.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Payload in the log that is compacted all at once, in MiB.
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Payload that is written to a log that is compacted again and again, in MiB.
    #[arg(long, default_value_t = 512)]
    rolled: u64,
    /// It is compacted whenever it holds so much, in MiB ...
    #[arg(long, default_value_t = 64)]
    above: u64,
    /// ... to so much.
    #[arg(long, default_value_t = 32)]
    kept: u64,
    /// What a commit is, as entries,bytes,groups.
    #[arg(long, value_parser = Case::parse, default_value = "100,256,1")]
    case: Case,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
}

/// Runs what the command line asks for.
///
/// # Errors
/// If a file can't be made or written.
pub fn main() -> Result<()> {
    let args = Args::parse();
    let dir = tempfile::tempdir_in(&args.dir)?;
    let report = json!({ "bench": "space", "all_at_once": at_once(&args, dir.path())?, "rolling": rolling(&args, dir.path())? });
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn commit(stored: &mut Stored) -> Result<Duration> {
    stored.prepare()?;
    let start = Instant::now();
    stored.commit()?;
    Ok(start.elapsed())
}

/// A log that is written, and then compacted away.
fn at_once(args: &Args, dir: &Path) -> Result<Value> {
    let dir = dir.join("once");
    let path = dir.join(FILE);
    let mut stages = Vec::new();
    let mut tell = |stage: &str, path: &Path, took: Duration| -> Result<()> {
        let size = Size::of(path)?;
        let ms = took.as_secs_f64() * 1e3;
        if !args.json {
            println!("  {stage:<44} {size}   ({ms:.1} ms)");
        }
        stages.push(json!({
            "stage": stage, "len_mib": mib(size.len), "allocated_mib": mib(size.allocated), "ms": ms
        }));
        Ok(())
    };
    if !args.json {
        println!("space: {} MiB of log, {}, compacted at once", args.mib, args.case);
    }
    let mut stored = Stored::new(&dir, args.case, Options::default(), false)?;
    let start = Instant::now();
    let mut written = 0;
    while written < args.mib << 20 {
        commit(&mut stored)?;
        written += args.case.payload_bytes() as u64;
    }
    tell("written", &path, start.elapsed())?;
    let up_to = Index(stored.mints[0].next - 1);
    let before = stored.io();
    let took = stored.compact(up_to)?;
    let removing = stored.io() - before;
    tell("compacted: all of the log", &path, took)?;
    let mut done = 0;
    for commits in [1, 10, 100, 1000] {
        let start = Instant::now();
        while done < commits {
            commit(&mut stored)?;
            done += 1;
        }
        tell(&format!("after {commits} more commits"), &path, start.elapsed())?;
    }
    let (before, start) = (stored.io(), Instant::now());
    stored.store.reclaim()?;
    let (took, io) = (start.elapsed(), stored.io() - before);
    tell("reclaimed", &path, took)?;
    if !args.json {
        let Io { written, read, syncs, .. } = io;
        println!("  which wrote {:.1} MiB, read {:.1} MiB, synced {syncs} times", mib(written), mib(read));
        let Io { written, read, .. } = removing;
        println!("  (compacting wrote {:.1} MiB and read {:.1} MiB)", mib(written), mib(read));
    }
    tell("one more commit", &path, commit(&mut stored)?)?;
    if !args.json {
        println!();
    }
    stored.store.close()?;
    Ok(json!({
        "log_mib": args.mib, "commit": args.case.to_string(), "stages": stages,
        "compacting": { "written_mib": mib(removing.written), "read_mib": mib(removing.read) },
        "reclaim": {
            "ms": took.as_secs_f64() * 1e3, "written_mib": mib(io.written), "read_mib": mib(io.read), "syncs": io.syncs
        },
    }))
}

/// A log that is written on and on, and compacted whenever it is long.
fn rolling(args: &Args, dir: &Path) -> Result<Value> {
    let dir = dir.join("rolling");
    let path = dir.join(FILE);
    let mut stored = Stored::new(&dir, args.case, Options::default(), false)?;
    let (mut written, mut held) = (0, 0);
    let (mut commits, mut compactions) = (Vec::new(), Vec::new());
    // The first half is for the file to find its size.
    let (mut early, mut late) = (Size::default(), Size::default());
    let mut lens = std::collections::BTreeSet::new();
    let mut half = None;
    while written < args.rolled << 20 {
        commits.push(commit(&mut stored)?);
        written += args.case.payload_bytes() as u64;
        held += args.case.payload_bytes() as u64;
        if held >= args.above << 20 {
            let entries = (args.kept << 20) / args.case.payload_bytes() as u64 * args.case.entries as u64;
            compactions.push(stored.compact(Index(stored.mints[0].next - 1 - entries))?);
            held = args.kept << 20;
        }
        let size = Size::of(&path)?;
        if written * 2 < args.rolled << 20 {
            early = early.max(size);
        } else {
            late = late.max(size);
            lens.insert(size.len);
            if half.is_none() {
                half = Some((stored.io(), commits.len(), compactions.len()));
                commits.clear();
            }
        }
    }
    commits.sort_unstable();
    compactions.sort_unstable();
    let io = stored.io() - half.unwrap_or_default().0;
    let micros = |times: &[Duration], percent| quantile(times, percent).as_micros();
    let [p50, p99] = [50, 99].map(|percent| micros(&commits, percent));
    let slowest = commits.last().copied().unwrap_or_default().as_micros();
    let [usual, longest] = [50, 100].map(|percent| micros(&compactions, percent));
    let each = |count: u64| count as f64 / commits.len().max(1) as f64;
    if !args.json {
        println!(
            "space: {} MiB written, {}, the log compacted from {} MiB to {} MiB {} times",
            args.rolled,
            args.case,
            args.above,
            args.kept,
            compactions.len()
        );
        println!("  largest, first half   {early}");
        println!("  largest, second half  {late}; {} lengths, {} set_len", lens.len(), io.set_lens);
        println!(
            "  second half: {:.1} KiB written a commit, {:.3} syncs",
            each(io.written) / 1024.0,
            each(io.syncs)
        );
        println!(
            "  a commit {p50} µs (p50), {p99} (p99), {slowest} (slowest); one that compacts {usual} (p50), {longest} (slowest)"
        );
    }
    stored.store.close()?;
    Ok(json!({
        "rolled_mib": args.rolled, "above_mib": args.above, "kept_mib": args.kept, "commit": args.case.to_string(),
        "compactions": compactions.len(),
        "first_half": { "len_mib": mib(early.len), "allocated_mib": mib(early.allocated) },
        "second_half": {
            "len_mib": mib(late.len), "allocated_mib": mib(late.allocated), "lengths": lens.len(),
            "io_per_commit": io.json(commits.len() as u64), "set_lens": io.set_lens,
            "commit_micros": { "p50": p50, "p99": p99, "max": slowest },
        },
        "compaction_micros": { "p50": usual, "max": longest },
    }))
}
