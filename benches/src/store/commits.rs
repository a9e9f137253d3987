//! What a durable commit costs: a plain file's, redb's own in its several ways, and the store's, in one run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Parser;
use quorate_storage_redb::Options;

use super::{
    Case,
    bare::Bare,
    floor::Floor,
    stored::Stored,
    turns::{self, Effort, Named},
    watermark::{Beside, Within},
};

/// What a durable commit costs.
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
    /// Every mix of 1 and 100 entries of 64 B, 256 B and 4 KiB in 1 and 8 groups: some ten minutes, 4 GiB.
    #[arg(long)]
    all: bool,
    /// This case alone, as entries,bytes,groups.
    #[arg(long, value_parser = Case::parse, conflicts_with = "all")]
    case: Option<Case>,
    /// Only the variants with this in their names, and the first to compare with.
    #[arg(long)]
    only: Option<String>,
    /// Not even the first, if it isn't named: to run one variant under a profiler.
    #[arg(long, requires = "only")]
    alone: bool,
    /// Memory for redb's cache, in MiB.
    #[arg(long, default_value_t = 16)]
    cache: usize,
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
    let case = |groups, entries, payload| Case { groups, entries, payload };
    let cases = match (args.case, args.all) {
        (Some(case), _) => vec![case],
        (None, false) => vec![case(1, 1, 256), case(1, 100, 256), case(8, 1, 256)],
        (None, true) => [1, 8]
            .into_iter()
            .flat_map(|groups| [1, 100].map(|entries| (groups, entries)))
            .flat_map(|(groups, entries)| [64, 256, 4096].map(|payload| case(groups, entries, payload)))
            .collect(),
    };
    let mut reports = Vec::new();
    for case in cases {
        let dir = tempfile::tempdir_in(&args.dir)?;
        // Some 50 MiB of payload a variant at most: the files of the largest cases would fill the disk.
        let turn = args.turn.min((50 << 20) / (case.payload_bytes() * (args.rounds + 1))).max(5);
        let effort = Effort { rounds: args.rounds, turn };
        let mut variants = variants(dir.path(), case, args.cache << 20)?;
        if let Some(only) = &args.only {
            let mut first = !args.alone;
            variants.retain(|(name, _)| std::mem::take(&mut first) || name.contains(only.as_str()));
        }
        let costs = turns::measure(variants, effort)?;
        if args.json {
            reports.push(turns::json("commits", case, effort, &costs));
        } else {
            turns::print("commits", case, effort, &costs);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    Ok(())
}

fn variants(dir: &Path, case: Case, cache: usize) -> Result<Vec<Named>> {
    fs::create_dir_all(dir)?;
    let path = |name: &str| dir.join(name);
    let options = Options::default().cache_bytes(cache);
    let two_phase = options.two_phase(true);
    let mut variants: Vec<Named> = vec![
        // What all others are held against.
        ("redb, one phase".into(), Box::new(Bare::new(&path("one"), case, cache, |_| {})?)),
        (
            "redb, two phases".into(),
            Box::new(Bare::new(&path("two"), case, cache, |txn| txn.set_two_phase_commit(true))?),
        ),
        (
            "redb, quick repair".into(),
            Box::new(Bare::new(&path("quick"), case, cache, |txn| txn.set_quick_repair(true))?),
        ),
        ("plain file that grows".into(), Box::new(Floor::new(&path("grows"), case, true)?)),
        ("plain file, preallocated".into(), Box::new(Floor::new(&path("laid"), case, false)?)),
        (
            "redb, watermark beside, synced first".into(),
            Box::new(Beside::new(&path("first"), case, cache, false)?),
        ),
        (
            "redb, watermark beside, synced by a thread".into(),
            Box::new(Beside::new(&path("beside"), case, cache, true)?),
        ),
        ("redb, watermark in the file".into(), Box::new(Within::new(&path("within"), case, cache)?)),
        ("RedbStore".into(), Box::new(Stored::new(&path("store"), case, options, false)?)),
        ("RedbStore, two phases".into(), Box::new(Stored::new(&path("store2"), case, two_phase, false)?)),
    ];
    if case.entries > 1 {
        let singly = Stored::new(&path("single"), case, options, true)?;
        variants.push(("RedbStore, a write for each entry".into(), Box::new(singly)));
    }
    Ok(variants)
}
