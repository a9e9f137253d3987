//! Variants that take turns, and the table of what each cost.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Case, counting::Io};

/// One way to commit.
pub(super) trait Variant {
    /// Makes what is to be committed; not part of what is measured.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Commits it, durably.
    fn commit(&mut self) -> Result<()>;

    /// What was done to the disk so far.
    fn io(&self) -> Io;

    /// Bytes of pages in use, for each byte of payload, if that can be told.
    fn space(&self) -> Result<Option<f64>> {
        Ok(None)
    }
}

pub(super) type Named = (String, Box<dyn Variant>);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Rounds in which each variant has its turn; one more goes before them, to warm up.
    pub(super) rounds: usize,
    /// Commits of one variant before it is the next one's turn.
    pub(super) turn: usize,
}

/// What a variant cost.
#[derive(Debug)]
pub(super) struct Cost {
    name: String,
    /// For each round, the times in order.
    turns: Vec<Vec<Duration>>,
    io: Io,
    space: Option<f64>,
}

/// Lets all variants take turns.
pub(super) fn measure(variants: Vec<Named>, effort: Effort) -> Result<Vec<Cost>> {
    let (mut costs, mut variants): (Vec<Cost>, Vec<Box<dyn Variant>>) = variants
        .into_iter()
        .map(|(name, variant)| (Cost { name, turns: Vec::new(), io: Io::default(), space: None }, variant))
        .unzip();
    for round in 0..=effort.rounds {
        for n in 0..variants.len() {
            // Another order in each round.
            let at = (n + round) % variants.len();
            let before = variants[at].io();
            let mut turn = Vec::with_capacity(effort.turn);
            for _ in 0..effort.turn {
                variants[at].prepare()?;
                let start = Instant::now();
                variants[at].commit()?;
                turn.push(start.elapsed());
            }
            if round > 0 {
                turn.sort_unstable();
                costs[at].turns.push(turn);
                costs[at].io += variants[at].io() - before;
            }
        }
    }
    for (cost, variant) in costs.iter_mut().zip(&variants) {
        cost.space = variant.space()?;
    }
    Ok(costs)
}

/// What is said of a variant.
struct Row<'a> {
    name: &'a str,
    micros: [u128; 3],
    mean: u128,
    /// Quartiles of the rounds' ratios to the first row.
    ratios: [f64; 3],
    commits: u64,
    io: Io,
    space: Option<f64>,
}

fn rows(costs: &[Cost]) -> Vec<Row<'_>> {
    let median = |turn: &Vec<Duration>| quantile(turn, 50).as_secs_f64();
    costs
        .iter()
        .map(|cost| {
            let mut all: Vec<Duration> = cost.turns.iter().flatten().copied().collect();
            all.sort_unstable();
            let first = costs.first().map_or([].as_slice(), |first| &first.turns);
            let mut ratios: Vec<f64> =
                cost.turns.iter().zip(first).map(|(turn, first)| median(turn) / median(first)).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            Row {
                name: &cost.name,
                micros: [50, 90, 99].map(|percent| quantile(&all, percent).as_micros()),
                mean: (all.iter().sum::<Duration>() / all.len().max(1) as u32).as_micros(),
                ratios: [25, 50, 75].map(|percent| quantile(&ratios, percent)),
                commits: all.len() as u64,
                io: cost.io,
                space: cost.space,
            }
        })
        .collect()
}

/// That much of `sorted` is below it.
pub(super) fn quantile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}

/// For people.
pub(super) fn print(title: &str, case: Case, effort: Effort, costs: &[Cost]) {
    println!("{title}: {case}; {} rounds of {} commits each, by turns", effort.rounds, effort.turn);
    println!(
        "{:<46} {:>6} {:>6} {:>6} {:>6}  {:>5} {:<13} {:>6} {:>8} {:>7} {:>6} {:>7} {:>6}",
        "",
        "p50 µs",
        "p90",
        "p99",
        "mean",
        "x",
        "(quartiles)",
        "writes",
        "KiB",
        "amplif.",
        "syncs",
        "set_len",
        "space"
    );
    for row in rows(costs) {
        let ([p50, p90, p99], [low, median, high]) = (row.micros, row.ratios);
        let each = |count: u64| count as f64 / row.commits.max(1) as f64;
        println!(
            "{:<46} {p50:>6} {p90:>6} {p99:>6} {:>6}  {median:>5.2} ({low:.2} - {high:.2}) {:>6.1} {:>8.1} {:>7.1} {:>6.2} {:>7.3} {:>6}",
            row.name,
            row.mean,
            each(row.io.writes),
            each(row.io.written) / 1024.0,
            each(row.io.written) / case.payload_bytes() as f64,
            each(row.io.syncs),
            each(row.io.set_lens),
            row.space.map_or_else(String::new, |space| format!("{space:.2}")),
        );
    }
    // When all CPUs are busy, a sync returns with the scheduler's next tick, whatever was written.
    let slow = rows(costs).first().is_some_and(|row| row.micros[0] > 2000);
    if slow && case.payload_bytes() < 200 << 10 {
        println!("(the machine is busy: these times say nothing, the counts do)");
    }
    println!();
}

/// For programs.
pub(super) fn json(title: &str, case: Case, effort: Effort, costs: &[Cost]) -> Value {
    let variants: Vec<Value> = rows(costs)
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "micros": { "p50": row.micros[0], "p90": row.micros[1], "p99": row.micros[2], "mean": row.mean },
                "ratio": { "p25": row.ratios[0], "p50": row.ratios[1], "p75": row.ratios[2] },
                "io_per_commit": row.io.json(row.commits),
                "space_amplification": row.space,
                "write_amplification":
                    row.io.written as f64 / (row.commits.max(1) as f64 * case.payload_bytes() as f64),
            })
        })
        .collect();
    json!({
        "bench": title,
        "groups": case.groups,
        "entries": case.entries,
        "payload": case.payload,
        "rounds": effort.rounds,
        "turn": effort.turn,
        "variants": variants,
    })
}
