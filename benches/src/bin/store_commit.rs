//! What a durable commit costs: redb's own in its several ways, and the store's, in one run and by turns.
//!
//! `cargo run --release -p quorate-benches --bin store_commit [-- --dir DIR] [--rounds N] [--open MIB]`
//!
//! The files are made in DIR (default: the current directory), which should be on the disk that is meant, and removed at
//! the end. With `--open` it measures instead how long a store with that much log takes to open.

use std::{
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use quorate_core::{GroupId, Incarnation, Index, Membership, NodeId, Run, Store, Term, Write};
use quorate_storage_redb::{Identity, Options, RedbStore};
use redb::{BackendError, Database, StorageBackend, TableDefinition, backends::FileBackend};

const ENTRY: usize = 256;
const CACHE: usize = 32 << 20;
/// Commits of one variant before it is the next one's turn.
const TURN: usize = 60;
const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let rounds = value("--rounds").map_or(Ok(12), |n| n.parse())?;
    let dir = value("--dir").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(dir)?;
    match value("--open") {
        Some(mib) => open_times(dir.path(), mib.parse()?),
        None => [1, 100].into_iter().try_for_each(|entries| commits(dir.path(), entries, rounds)),
    }
}

/// One way to commit.
trait Variant {
    /// Makes what is to be committed; not part of what is measured.
    fn prepare(&mut self, _entries: usize) -> Result<()> {
        Ok(())
    }
    fn commit(&mut self, entries: usize) -> Result<()>;
}

fn commits(dir: &Path, entries: usize, rounds: usize) -> Result<()> {
    let dir = &dir.join(entries.to_string());
    fs::create_dir_all(dir)?;
    let mut variants: Vec<(&str, Box<dyn Variant>)> = vec![
        ("redb, one phase", Box::new(Bare::new(dir, "one", |_| {})?)),
        ("redb, two phases", Box::new(Bare::new(dir, "two", |txn| txn.set_two_phase_commit(true))?)),
        ("redb, quick repair", Box::new(Bare::new(dir, "quick", |txn| txn.set_quick_repair(true))?)),
        ("redb, watermark in a file of its own, synced first", Box::new(Beside::new(dir, "first", false)?)),
        ("redb, watermark in a file of its own, synced beside", Box::new(Beside::new(dir, "beside", true)?)),
        ("redb, watermark in the same file", Box::new(Within::new(dir, "within")?)),
        ("RedbStore", Box::new(Stored::new(dir, "store", false, false)?)),
        ("RedbStore, an entry a write", Box::new(Stored::new(dir, "single", false, true)?)),
        ("RedbStore, two phases", Box::new(Stored::new(dir, "store2", true, false)?)),
    ];
    if entries == 1 {
        variants.retain(|(name, _)| !name.ends_with("an entry a write"));
    }
    let mut times: Vec<Vec<Vec<Duration>>> = vec![Vec::new(); variants.len()];
    for round in 0..=rounds {
        for n in 0..variants.len() {
            // Another order in each round.
            let at = (n + round) % variants.len();
            let mut turn = Vec::with_capacity(TURN);
            for _ in 0..TURN {
                variants[at].1.prepare(entries)?;
                let start = Instant::now();
                variants[at].1.commit(entries)?;
                turn.push(start.elapsed());
            }
            // The first round warms up.
            if round > 0 {
                turn.sort_unstable();
                times[at].push(turn);
            }
        }
    }
    println!("{entries} x {ENTRY} B a commit, {rounds} rounds of {TURN} commits each, by turns");
    println!("{:<52} {:>8} {:>8} {:>8} {:>16}", "", "p50 µs", "p90 µs", "p99 µs", "x (p50, by round)");
    for (at, (name, _)) in variants.iter().enumerate() {
        let mut all: Vec<Duration> = times[at].iter().flatten().copied().collect();
        all.sort_unstable();
        let mut ratios: Vec<f64> = times[at]
            .iter()
            .zip(&times[0])
            .map(|(turn, bare)| quantile(turn, 50).as_secs_f64() / quantile(bare, 50).as_secs_f64())
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let [p50, p90, p99] = [50, 90, 99].map(|q| quantile(&all, q).as_micros());
        println!("{name:<52} {p50:>8} {p90:>8} {p99:>8} {:>16.2}", ratios[ratios.len() / 2]);
    }
    println!();
    Ok(())
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}

/// redb as it is: one value an entry.
struct Bare {
    db: Database,
    next: u64,
    mode: fn(&mut redb::WriteTransaction),
}

impl Bare {
    fn new(dir: &Path, name: &str, mode: fn(&mut redb::WriteTransaction)) -> Result<Self> {
        let db = Database::builder().set_cache_size(CACHE).create(dir.join(name))?;
        Ok(Self { db, next: 0, mode })
    }
}

impl Variant for Bare {
    fn commit(&mut self, entries: usize) -> Result<()> {
        insert(&self.db, &mut self.next, entries, self.mode)
    }
}

fn insert(
    db: &Database,
    next: &mut u64,
    entries: usize,
    mode: fn(&mut redb::WriteTransaction),
) -> Result<()> {
    let mut txn = db.begin_write()?;
    mode(&mut txn);
    {
        let mut table = txn.open_table(TABLE)?;
        for _ in 0..entries {
            table.insert(*next, payload(*next).as_slice())?;
            *next += 1;
        }
    }
    txn.commit()?;
    Ok(())
}

fn payload(n: u64) -> [u8; ENTRY] {
    let mut payload = [n as u8; ENTRY];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    payload
}

fn watermark(next: u64) -> [u8; 76] {
    let mut page = [0; 76];
    page[..8].copy_from_slice(&next.to_le_bytes());
    let sum = crc32c::crc32c(&page[..72]);
    page[72..].copy_from_slice(&sum.to_le_bytes());
    page
}

/// One phase, and a watermark in a small file: written before the acknowledgement, synced with the next commit.
struct Beside {
    bare: Bare,
    mark: File,
    beside: Option<(mpsc::Sender<()>, mpsc::Receiver<io::Result<()>>)>,
}

impl Beside {
    fn new(dir: &Path, name: &str, beside: bool) -> Result<Self> {
        let bare = Bare::new(dir, name, |_| {})?;
        let path = dir.join(format!("{name}.mark"));
        let mark = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        mark.write_all_at(&[0; 8192], 0)?;
        mark.sync_all()?;
        let beside = beside.then(|| -> io::Result<_> {
            let ((ask, asked), (answer, answered)) = (mpsc::channel(), mpsc::channel());
            let file = mark.try_clone()?;
            thread::spawn(move || while asked.recv().is_ok() && answer.send(file.sync_data()).is_ok() {});
            Ok((ask, answered))
        });
        Ok(Self { bare, mark, beside: beside.transpose()? })
    }
}

impl Variant for Beside {
    fn commit(&mut self, entries: usize) -> Result<()> {
        match &self.beside {
            None => {
                self.mark.sync_data()?;
                self.bare.commit(entries)?;
            }
            Some((ask, answered)) => {
                ask.send(())?;
                self.bare.commit(entries)?;
                answered.recv()??;
            }
        }
        self.mark.write_all_at(&watermark(self.bare.next), (self.bare.next / entries as u64 % 2) * 4096)?;
        Ok(())
    }
}

/// One phase, and a watermark in front of the database in the same file, so that one sync takes both.
struct Within {
    db: Database,
    file: Arc<FileBackend>,
    next: u64,
}

impl Within {
    fn new(dir: &Path, name: &str) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join(name))?;
        file.set_len(16 << 10)?;
        let file = Arc::new(FileBackend::new(file)?);
        let db = Database::builder().set_cache_size(CACHE).create_with_backend(Shifted(Arc::clone(&file)))?;
        Ok(Self { db, file, next: 0 })
    }
}

impl Variant for Within {
    fn commit(&mut self, entries: usize) -> Result<()> {
        insert(&self.db, &mut self.next, entries, |_| {})?;
        self.file.write(4096 + (self.next / entries as u64 % 2) * 4096, &watermark(self.next))?;
        Ok(())
    }
}

#[derive(Debug)]
struct Shifted(Arc<FileBackend>);

impl StorageBackend for Shifted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()? - (16 << 10))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset + (16 << 10), out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len + (16 << 10))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset + (16 << 10), data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
}

/// The store: one write with all the entries, or one write for each.
struct Stored {
    store: RedbStore,
    incarnation: Incarnation,
    seq: u64,
    next: u64,
    singly: bool,
    prepared: Vec<Write>,
}

const IDENTITY: Identity = Identity { cluster: 1, node: NodeId(1) };
const GROUP: GroupId = GroupId(0);

impl Stored {
    fn new(dir: &Path, name: &str, two_phase: bool, singly: bool) -> Result<Self> {
        let options = Options::default().cache_bytes(CACHE).two_phase(two_phase);
        let groups = [(GROUP, Membership::of_voters([NodeId(1)]))];
        let mut store = RedbStore::create_with(options, dir.join(name), IDENTITY, &groups)?;
        let incarnation = store.recover(GROUP)?.incarnation;
        Ok(Self { store, incarnation, seq: 1, next: 1, singly, prepared: Vec::new() })
    }

    fn write(&mut self, entries: usize) -> Result<Write> {
        let payloads: Vec<_> = (self.next..self.next + entries as u64).map(payload).collect();
        let mut write: Write = serde_json::from_value(serde_json::json!({
            "hard_state": null, "truncate": null, "entries": [],
            "receipt": {
                "group": GROUP, "incarnation": self.incarnation, "first": self.seq, "last": self.seq
            },
        }))?;
        write.entries.push(Run::commands(Term(1), Index(self.next), &payloads).ok_or("no entries")?);
        self.seq += 1;
        self.next += entries as u64;
        Ok(write)
    }
}

impl Variant for Stored {
    fn prepare(&mut self, entries: usize) -> Result<()> {
        self.prepared = if self.singly {
            (0..entries).map(|_| self.write(1)).collect::<Result<Vec<_>>>()?
        } else {
            vec![self.write(entries)?]
        };
        Ok(())
    }

    fn commit(&mut self, _entries: usize) -> Result<()> {
        Ok(self.store.commit(&self.prepared)?)
    }
}

/// How long it takes to open a store with a log of `mib` MiB, and to recover its group.
fn open_times(dir: &Path, mib: usize) -> Result<()> {
    let mut made = Stored::new(dir, "log", false, false)?;
    let entries = 230;
    while made.next as usize * ENTRY < mib << 20 {
        made.prepare(entries)?;
        made.commit(entries)?;
    }
    // The file as a kill leaves it.
    fs::create_dir_all(dir.join("killed"))?;
    fs::copy(dir.join("log/quorate.store"), dir.join("killed/quorate.store"))?;
    made.store.close()?;
    let bytes = fs::metadata(dir.join("log/quorate.store"))?.len();
    println!(
        "{mib} MiB of log in runs of {entries} x {ENTRY} B; the file has {} MiB; page cache warm",
        bytes >> 20
    );
    for (what, name, verify) in [
        ("after a kill", "killed", true),
        ("after a close", "log", true),
        ("after a close, without verify_on_open", "log", false),
    ] {
        let options = Options::default().cache_bytes(CACHE).verify_on_open(verify);
        let start = Instant::now();
        let mut store = RedbStore::open_with(options, dir.join(name), IDENTITY)?;
        let opened = start.elapsed();
        store.recover(GROUP)?;
        let recovered = start.elapsed() - opened;
        store.close()?;
        println!("{what:<40} open {:>6} ms, recover {:>6} ms", opened.as_millis(), recovered.as_millis());
    }
    Ok(())
}
