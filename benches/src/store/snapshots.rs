//! How fast a snapshot is staged and read, in how much memory, and what the commits beside it notice.

use std::{
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use clap::{Parser, Subcommand, ValueEnum};
use quorate_core::{
    GroupId, Index, Membership, NodeId, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, Store,
};
use quorate_storage_redb::{Options, RedbSnapshots, RedbStore};
use serde_json::{Value, json};

use super::{
    Case,
    counting::Counts,
    folder::Folder,
    minted::snapshot,
    process::{cool, disk_read, peak_kib, warm},
    stored::{IDENTITY, Stored},
    turns::{Variant, quantile},
};

/// How fast a snapshot is staged and read.
#[derive(Parser, Debug)]
struct Args {
    /// Where the files are made: on the disk that is meant.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes in the snapshot, in MiB.
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Bytes in a chunk that is written or read, in KiB.
    #[arg(long, default_value_t = 256)]
    chunk: usize,
    /// `sync` is called whenever so many MiB of a snapshot have come.
    #[arg(long, default_value_t = 16)]
    synced: u64,
    /// Times that commits are measured with and without a snapshot beside them, by turns.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Commits in each; they are made at their own pace, one after the other.
    #[arg(long, default_value_t = 400)]
    turn: usize,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What a child does: not for the command line.
#[derive(Subcommand, Debug)]
enum Child {
    /// Stages or reads a snapshot.
    #[command(hide = true)]
    Do { what: What, dir: PathBuf },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum What {
    Take,
    Receive,
    Read,
}

/// Where the snapshot is: an entry that no log gets to.
const AT: Index = Index(1 << 32);
const GROUP: GroupId = GroupId(0);

/// Runs what the command line asks for.
///
/// # Errors
/// If a file can't be made, written or read.
pub fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Child::Do { what, dir }) = &args.child {
        return child(&args, *what, dir);
    }
    let mut rows = Vec::new();
    for received in [false, true] {
        let dir = tempfile::tempdir_in(&args.dir)?;
        rows.push(run(&args, if received { "receive" } else { "take" }, dir.path(), "")?);
        let file = published(dir.path())?;
        for cold in [false, true] {
            if received {
                continue;
            }
            if cold {
                cool(&file)?;
            } else {
                warm(&file)?;
            }
            rows.push(run(&args, "read", dir.path(), if cold { "cold" } else { "warm" })?);
        }
    }
    let mut beside_rows = Vec::new();
    for what in [Beside::Take, Beside::Receive, Beside::Slowly(64)] {
        beside_rows.push(beside(&args, what)?);
    }
    if args.json {
        let report =
            json!({ "bench": "snapshots", "mib": args.mib, "throughput": rows, "beside": beside_rows });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("snapshots: {} MiB in chunks of {} KiB", args.mib, args.chunk);
    for row in &rows {
        println!(
            "  {:<12} {:>7.0} MiB/s, {:>6.1} ms to the first byte or the last; memory {:.1} MiB at its peak, {:.1} before; {:.0} MiB from the disk",
            row["what"].as_str().unwrap_or_default(),
            row["mib_per_second"].as_f64().unwrap_or(f64::NAN),
            row["edge_ms"].as_f64().unwrap_or(f64::NAN),
            row["peak_mib"].as_f64().unwrap_or(f64::NAN),
            row["idle_mib"].as_f64().unwrap_or(f64::NAN),
            row["disk_mib"].as_f64().unwrap_or(f64::NAN),
        );
    }
    println!(
        "commits of 1 x 256 B beside a snapshot that is taken, µs; {} rounds of {}",
        args.rounds, args.turn
    );
    for rows in &beside_rows {
        for row in rows.as_array().into_iter().flatten() {
            let (name, row) = (row["name"].as_str().unwrap_or_default(), &row["micros"]);
            println!("  {name:<60} p50 {:>6}  p99 {:>6}  max {:>7}", row["p50"], row["p99"], row["max"]);
        }
    }
    Ok(())
}

fn run(args: &Args, what: &str, dir: &Path, page_cache: &str) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--mib", &args.mib.to_string(), "--chunk", &args.chunk.to_string()])
        .args(["--synced", &args.synced.to_string(), "do", what])
        .arg(dir)
        .output()?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut row: Value = serde_json::from_slice(&output.stdout)?;
    row["what"] = format!("{what} {page_cache}").trim().into();
    Ok(row)
}

fn published(dir: &Path) -> Result<PathBuf> {
    let mut names = std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    names
        .find(|path| path.extension().is_some_and(|end| end == "snapshot"))
        .ok_or_else(|| anyhow!("no snapshot was published"))
}

/// A chunk that is not like the one before.
fn chunk(chunk: &mut [u8], n: u64) {
    let number = n.to_le_bytes();
    for part in chunk.chunks_mut(4096) {
        let len = part.len().min(number.len());
        part[..len].copy_from_slice(&number[..len]);
    }
}

/// What a receiver is told beforehand.
fn announced(args: &Args, at: Index) -> SnapshotInfo {
    let (mut bytes, mut checksum) = (vec![0x5A; args.chunk << 10], 0);
    let chunks = (args.mib << 20) / bytes.len() as u64;
    for n in 0..chunks {
        chunk(&mut bytes, n);
        checksum = crc32c::crc32c_append(checksum, &bytes);
    }
    SnapshotInfo { snapshot: snapshot(at), bytes: chunks * bytes.len() as u64, checksum }
}

/// Writes so many bytes, and syncs now and then.
fn stage(writer: &mut impl SnapshotWriter, mib: u64, kib: usize, synced: u64) -> Result<()> {
    let mut bytes = vec![0x5A; kib << 10];
    let mut unsynced = 0;
    for n in 0..(mib << 20) / bytes.len() as u64 {
        chunk(&mut bytes, n);
        writer.write(&bytes)?;
        unsynced += bytes.len() as u64;
        if unsynced >= synced << 20 {
            writer.sync()?;
            unsynced = 0;
        }
    }
    Ok(())
}

fn child(args: &Args, what: What, dir: &Path) -> Result<()> {
    let folder = Folder::new(dir, &Counts::default(), &Counts::default());
    let store = if what == What::Read {
        RedbStore::open_on(Options::default(), folder, IDENTITY)?
    } else {
        let groups = [(GROUP, Membership::of_voters([NodeId(1)]))];
        RedbStore::create_on(Options::default(), folder, IDENTITY, &groups)?
    };
    let snapshots = store.snapshots();
    let announced = (what == What::Receive).then(|| announced(args, AT));
    let (idle, disk, start) = (peak_kib()?, disk_read()?, Instant::now());
    let edge = match what {
        What::Take | What::Receive => {
            let mut writer = match &announced {
                Some(info) => snapshots.receive(GROUP, info)?,
                None => snapshots.take(GROUP, &snapshot(AT))?,
            };
            stage(&mut writer, args.mib, args.chunk, args.synced)?;
            let last = Instant::now();
            writer.publish()?;
            last.elapsed()
        }
        What::Read => {
            let mut reader =
                snapshots.open(GROUP, snapshot(AT).last)?.ok_or_else(|| anyhow!("no snapshot"))?;
            let mut bytes = vec![0; args.chunk << 10];
            let (mut at, mut first) = (0, None);
            loop {
                let got = reader.read_at(at, &mut bytes)?;
                first.get_or_insert_with(|| start.elapsed());
                at += got as u64;
                if got < bytes.len() {
                    break first.unwrap_or_default();
                }
            }
        }
    };
    let took = start.elapsed();
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "{}",
        json!({
            "mib_per_second": args.mib as f64 / took.as_secs_f64(),
            "edge_ms": edge.as_secs_f64() * 1e3,
            "idle_mib": mib(idle),
            "peak_mib": mib(peak_kib()?),
            "disk_mib": mib((disk_read()? - disk) >> 10),
        })
    );
    if what == What::Read {
        exit(0);
    }
    Ok(store.close()?)
}

/// What goes on beside the commits.
#[derive(Clone, Copy, Debug)]
enum Beside {
    /// Snapshots are taken as fast as can be; the store syncs them as it sees fit.
    Take,
    /// Snapshots are received as fast as can be; `sync` is called now and then as well.
    Receive,
    /// A snapshot is taken at so many MiB a second.
    Slowly(u64),
}

/// Commits with and without a snapshot that is staged beside them, by turns.
fn beside(args: &Args, what: Beside) -> Result<Value> {
    let dir = tempfile::tempdir_in(&args.dir)?;
    let case = Case { groups: 1, entries: 1, payload: 256 };
    let mut stored = Stored::new(dir.path(), case, Options::default().keep_snapshots(1), false)?;
    let info = announced(args, AT);
    let mut times = [Vec::new(), Vec::new()];
    let (mut staged, mut published, mut next) = (0, 0, AT.0);
    for round in 0..=args.rounds {
        for with in [round % 2 == 0, round % 2 == 1] {
            let stop = Arc::new(AtomicBool::new(false));
            let stager = with.then(|| {
                let stager = Stager {
                    snapshots: stored.store.snapshots(),
                    info: info.clone(),
                    next,
                    what,
                    kib: args.chunk,
                    synced: args.synced << 20,
                    stop: Arc::clone(&stop),
                };
                thread::spawn(move || stager.run())
            });
            for _ in 0..args.turn {
                stored.prepare()?;
                let start = Instant::now();
                stored.commit()?;
                if round > 0 {
                    times[usize::from(with)].push(start.elapsed());
                }
            }
            stop.store(true, Relaxed);
            if let Some(stager) = stager {
                let (bytes, after) = stager.join().map_err(|_| anyhow!("the stager died"))??;
                staged += bytes;
                published += after - next;
                // What is staged of the last one is resumed in no later turn.
                next = after + 1;
            }
        }
    }
    let [without, with] = times.map(|mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |percent| quantile(&times, percent).as_micros();
        json!({ "p50": at(50), "p99": at(99), "max": at(100), "commits": times.len() })
    });
    let staged = format!("({} MiB, {published} published)", staged >> 20);
    let name = match what {
        Beside::Take => format!("taken as fast as can be {staged}"),
        Beside::Receive => format!("received, `sync` every {} MiB {staged}", args.synced),
        Beside::Slowly(mib) => format!("taken at {mib} MiB/s {staged}"),
    };
    Ok(json!([{ "name": "none", "micros": without }, { "name": name, "micros": with }]))
}

struct Stager {
    snapshots: RedbSnapshots,
    info: SnapshotInfo,
    next: u64,
    what: Beside,
    kib: usize,
    synced: u64,
    stop: Arc<AtomicBool>,
}

impl Stager {
    /// Stages snapshots, one after the other, until it is told to stop; gives how many bytes, and which is not whole.
    fn run(mut self) -> Result<(u64, u64)> {
        let mut bytes = vec![0x5A; self.kib << 10];
        let (mut staged, start) = (0, Instant::now());
        loop {
            self.info.snapshot = snapshot(Index(self.next));
            let mut writer = match self.what {
                Beside::Receive => self.snapshots.receive(GROUP, &self.info)?,
                Beside::Take | Beside::Slowly(_) => self.snapshots.take(GROUP, &self.info.snapshot)?,
            };
            let mut unsynced = 0;
            for n in writer.staged() / bytes.len() as u64..self.info.bytes / bytes.len() as u64 {
                if self.stop.load(Relaxed) {
                    return Ok((staged, self.next));
                }
                chunk(&mut bytes, n);
                writer.write(&bytes)?;
                staged += bytes.len() as u64;
                unsynced += bytes.len() as u64;
                if unsynced >= self.synced {
                    writer.sync()?;
                    unsynced = 0;
                }
                if let Beside::Slowly(mib) = self.what {
                    let due = Duration::from_secs_f64(staged as f64 / (mib << 20) as f64);
                    thread::sleep(due.saturating_sub(start.elapsed()));
                }
            }
            writer.publish()?;
            self.next += 1;
        }
    }
}
