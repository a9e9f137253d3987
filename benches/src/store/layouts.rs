//! Other ways to lay the log out in redb, side by side: what a value holds, what a key is, how many tables, what is
//! written besides, and how much memory redb's cache gets.
//!
//! All on bare redb, one phase, without a watermark, so that nothing but the layout differs.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use redb::{Database, Key, TableDefinition, WriteTransaction};

use super::{
    Case,
    ahead::{Ahead, Fill},
    bare,
    counting::{Counting, Counts, Io},
    payload,
    turns::{self, Effort, Named, Variant},
};

/// Which layout of the log costs what.
#[derive(Parser, Debug)]
struct Args {
    /// Where the files are made: on the disk that is meant.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds in which each variant has its turn.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Commits in a turn.
    #[arg(long, default_value_t = 40)]
    turn: usize,
    /// What is compared [default: all].
    #[arg(long, value_enum)]
    what: Vec<What>,
    /// This case alone, as entries,bytes,groups.
    #[arg(long, value_parser = Case::parse)]
    case: Option<Case>,
    /// Fills the file with zeros so many KiB ahead for all variants, so that they don't differ in how often they need new
    /// blocks.
    #[arg(long)]
    zeros: Option<u64>,
    /// Only the variants with this in their names, and the first to compare with.
    #[arg(long)]
    only: Option<String>,
    /// Machine-readable.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum What {
    /// How many entries share a value.
    Values,
    /// What the key is.
    Keys,
    /// One table, or one for each group.
    Tables,
    /// Whether a record of the group's state goes with each commit.
    State,
    /// How much memory the cache gets.
    Caches,
    /// Whether the file has its blocks before they are needed.
    Room,
}

/// What a key is made of.
#[derive(Clone, Copy, Debug)]
enum Keyed {
    /// Group and index in one number: has no room for both, and is here for comparison.
    Number,
    /// Group and index, big-endian.
    Bytes,
    /// redb's own pair of numbers.
    Pair,
}

/// A key of redb's that can be made of group and index.
trait Make: Key + 'static {
    fn make(group: u64, index: u64) -> Self::SelfType<'static>;
}

impl Make for u64 {
    fn make(group: u64, index: u64) -> u64 {
        group << 40 | index
    }
}

impl Make for [u8; 16] {
    fn make(group: u64, index: u64) -> [u8; 16] {
        (u128::from(group) << 64 | u128::from(index)).to_be_bytes()
    }
}

impl Make for (u64, u64) {
    fn make(group: u64, index: u64) -> (u64, u64) {
        (group, index)
    }
}

/// How the entries of a commit are cut into values.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// A value for each entry.
    Each,
    /// Up to so many bytes in one.
    UpTo(usize),
    /// The same, but cut at the next smaller power of two where rounding up would waste a quarter of the page or more.
    ToFit(usize),
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    keyed: Keyed,
    cut: Cut,
    table_per_group: bool,
    state_each_time: bool,
    cache: usize,
    fill: Option<Fill>,
}

/// As the store has it.
const OURS: Layout = Layout {
    keyed: Keyed::Bytes,
    cut: Cut::ToFit(LARGEST),
    table_per_group: false,
    state_each_time: false,
    cache: 16 << 20,
    fill: None,
};
/// With what redb puts around it, a value of that size just fits into a page of 64 KiB.
const LARGEST: usize = (64 << 10) - HEADER - AROUND;
/// What redb puts around a value: more than enough.
const AROUND: usize = 128;
/// In front of the entries of a value.
const HEADER: usize = 44;
/// In front of each entry.
const ENTRY_HEADER: usize = 5;

/// Runs what the command line asks for.
///
/// # Errors
/// If a file can't be made or written.
pub fn main() -> Result<()> {
    let args = Args::parse();
    let case = |groups, entries, payload| Case { groups, entries, payload };
    let one = case(1, 1, 256);
    let batch = case(1, 100, 256);
    let wide = case(1, 100, 350);
    let groups = case(8, 1, 256);
    let mut reports = Vec::new();
    for (what, title, cases) in [
        (What::Values, "entries to a value", vec![one, batch, wide]),
        (What::Keys, "keys", vec![one, batch]),
        (What::Tables, "tables", vec![one, groups]),
        (What::State, "record of the state", vec![one, batch]),
        (What::Caches, "redb's cache", vec![one, batch]),
        (What::Room, "blocks before they are needed", vec![one, batch, groups]),
    ] {
        if !args.what.is_empty() && !args.what.contains(&what) {
            continue;
        }
        let cases = args.case.map_or(cases, |case| vec![case]);
        for case in cases {
            let dir = tempfile::tempdir_in(&args.dir)?;
            let mut layouts = layouts(what);
            if let Some(kib) = args.zeros {
                layouts.iter_mut().for_each(|(_, layout)| layout.fill = Some(Fill::Zeros(kib << 10)));
            }
            if let Some(only) = &args.only {
                let mut first = true;
                layouts.retain(|(name, _)| std::mem::take(&mut first) || name.contains(only.as_str()));
            }
            let variants = layouts
                .into_iter()
                .enumerate()
                .map(|(n, (name, layout))| -> Result<Named> {
                    Ok((name, Box::new(Experiment::new(&dir.path().join(n.to_string()), case, layout)?)))
                })
                .collect::<Result<_>>()?;
            let effort = Effort { rounds: args.rounds, turn: args.turn };
            let costs = turns::measure(variants, effort)?;
            if args.json {
                reports.push(turns::json(title, case, effort, &costs));
            } else {
                turns::print(title, case, effort, &costs);
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    Ok(())
}

fn layouts(what: What) -> Vec<(String, Layout)> {
    let named = |name: &str, layout| (name.to_owned(), layout);
    match what {
        What::Values => vec![
            named("a value for each entry", Layout { cut: Cut::Each, ..OURS }),
            named("values of up to 4 KiB", Layout { cut: Cut::UpTo((4 << 10) - HEADER - AROUND), ..OURS }),
            named("values of up to 16 KiB", Layout { cut: Cut::UpTo((16 << 10) - HEADER - AROUND), ..OURS }),
            named("values of up to 64 KiB", Layout { cut: Cut::UpTo(LARGEST), ..OURS }),
            named("values of up to 64 KiB, cut to fit (ours)", OURS),
            named(
                "values of up to 256 KiB",
                Layout { cut: Cut::UpTo((256 << 10) - HEADER - AROUND), ..OURS },
            ),
        ],
        What::Keys => vec![
            named("one number", Layout { keyed: Keyed::Number, ..OURS }),
            named("16 bytes, big-endian (ours)", OURS),
            named("a pair of numbers", Layout { keyed: Keyed::Pair, ..OURS }),
        ],
        What::Tables => vec![
            named("one table of all groups (ours)", OURS),
            named("a table for each group", Layout { table_per_group: true, ..OURS }),
        ],
        What::State => vec![
            named("only when it changes (ours)", OURS),
            named("with each commit", Layout { state_each_time: true, ..OURS }),
        ],
        What::Caches => [16, 1, 4, 8, 32, 128]
            .into_iter()
            .map(|mib| (format!("{mib} MiB"), Layout { cache: mib << 20, ..OURS }))
            .collect(),
        What::Room => vec![
            named("a hole, as redb makes it (ours)", OURS),
            named("zeros, 256 KiB ahead", Layout { fill: Some(Fill::Zeros(256 << 10)), ..OURS }),
            named("zeros, 1 MiB ahead", Layout { fill: Some(Fill::Zeros(1 << 20)), ..OURS }),
            named("zeros, 4 MiB ahead", Layout { fill: Some(Fill::Zeros(4 << 20)), ..OURS }),
            named("fallocate, 1 MiB ahead", Layout { fill: Some(Fill::Blocks(1 << 20)), ..OURS }),
            named("fallocate, 16 MiB ahead", Layout { fill: Some(Fill::Blocks(16 << 20)), ..OURS }),
        ],
    }
}

struct Experiment {
    db: Database,
    case: Case,
    layout: Layout,
    next: u64,
    counts: Counts,
    /// By group: index and value.
    values: Vec<Vec<(u64, Vec<u8>)>>,
    names: Vec<String>,
}

impl Experiment {
    fn new(path: &Path, case: Case, layout: Layout) -> Result<Self> {
        let counts = Counts::default();
        let backend = Counting::create(path, counts.clone())?;
        let mut builder = Database::builder();
        builder.set_cache_size(layout.cache);
        let db = match layout.fill {
            None => builder.create_with_backend(backend)?,
            Some(fill) => {
                let raw = OpenOptions::new().write(true).open(path)?;
                builder.create_with_backend(Ahead::new(backend, raw, fill))?
            }
        };
        let names = if layout.table_per_group {
            (0..case.groups).map(|group| format!("log {group}")).collect()
        } else {
            vec!["log".to_owned()]
        };
        Ok(Self { db, case, layout, next: 1, counts, values: Vec::new(), names })
    }

    fn insert<K: Make>(&self, txn: &WriteTransaction) -> Result<()> {
        let per_table = self.values.len() / self.names.len();
        for (name, groups) in self.names.iter().zip(self.values.chunks(per_table)) {
            let definition: TableDefinition<'_, K, &[u8]> = TableDefinition::new(name);
            let mut table = txn.open_table(definition)?;
            let first = if self.names.len() > 1 { name[4..].parse()? } else { 0 };
            for (group, values) in (first..).zip(groups) {
                for (index, value) in values {
                    let mut to = table.insert_reserve(K::make(group, *index), value.len())?;
                    to.as_mut().copy_from_slice(value);
                }
            }
        }
        Ok(())
    }

    /// The entries of one group in this commit, each with its header, cut into values, each with its header.
    fn cut(&self) -> Vec<(u64, Vec<u8>)> {
        let each = ENTRY_HEADER + self.case.payload;
        let mut values = Vec::new();
        let mut done = 0;
        while done < self.case.entries {
            let left = self.case.entries - done;
            let bytes = match self.layout.cut {
                Cut::Each => each,
                Cut::UpTo(most) => most,
                Cut::ToFit(most) => fitting(left * each, most),
            };
            let here = (bytes / each).clamp(1, left);
            let first = self.next + done as u64;
            let mut value = vec![0; HEADER];
            for n in 0..here as u64 {
                value.extend_from_slice(&[0; ENTRY_HEADER]);
                value.extend_from_slice(&payload(first + n, self.case.payload));
            }
            values.push((first, value));
            done += here;
        }
        values
    }
}

/// How many of `bytes` to put into a value: all, if the page they need is filled to more than three quarters.
fn fitting(bytes: usize, most: usize) -> usize {
    let bytes = bytes.min(most);
    let needed = bytes + HEADER + AROUND;
    let page = needed.next_power_of_two();
    if page <= 4096 || needed * 4 > page * 3 { bytes } else { page / 2 - HEADER - AROUND }
}

impl Variant for Experiment {
    fn prepare(&mut self) -> Result<()> {
        self.values = (0..self.case.groups)
            .map(|_| {
                let mut values = self.cut();
                for (first, value) in &mut values {
                    let sum = crc32c::crc32c(value);
                    value[..4].copy_from_slice(&sum.to_le_bytes());
                    value[4..12].copy_from_slice(&first.to_le_bytes());
                }
                values
            })
            .collect();
        self.next += self.case.entries as u64;
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        const STATE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("groups");
        let txn = self.db.begin_write()?;
        match self.layout.keyed {
            Keyed::Number => self.insert::<u64>(&txn)?,
            Keyed::Pair => self.insert::<(u64, u64)>(&txn)?,
            Keyed::Bytes => self.insert::<[u8; 16]>(&txn)?,
        }
        if self.layout.state_each_time {
            let mut table = txn.open_table(STATE)?;
            for group in 0..self.case.groups as u64 {
                table.insert(group, [self.next as u8; 64].as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn io(&self) -> Io {
        self.counts.so_far()
    }

    fn space(&self) -> Result<Option<f64>> {
        let payload = (self.next - 1) * (self.case.groups * self.case.payload) as u64;
        bare::space(&self.db, payload).map(Some)
    }
}
