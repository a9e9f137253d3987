//! Runs seeds of the simulator: `quorate-sim run --seeds 0..500`, or one with its trace: `run --seed 7 --trace`.

use std::{
    io::{IsTerminal, stderr},
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
};

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_sim::{Count, Options, Profile, Summary, Trace, Violation, run_seeds, run_traced};

/// Whole quorate clusters in virtual time, under faults, with every invariant checked after every step.
#[derive(Parser)]
#[command(name = "quorate-sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run seeds, until all are done or one of them violates an invariant (then the exit code is 1).
    #[command(
        after_help = "Examples:\n  quorate-sim run --seeds 0..500\n  quorate-sim run --seed 42 --trace | less\n  \
                            quorate-sim run --seeds 0..100 --profile network --nodes 5 --json"
    )]
    Run(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// These seeds, the last one left out.
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "0..100", conflicts_with = "seed")]
    seeds: Range<u64>,
    /// This seed alone.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Which faults may be drawn.
    #[arg(long, value_enum, default_value = "everything")]
    profile: Profile,
    /// How many nodes, from 1 to 9; drawn from the seed if not said.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// Seconds of virtual time with faults in each run.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Threads; one for each core if not said.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print everything that happens; for one seed.
    #[arg(long, requires = "seed", conflicts_with = "json")]
    trace: bool,
    /// Hold every protocol step against the specification `spec/quorate.tla` instead: the first steps of each run.
    #[arg(long, conflicts_with = "trace")]
    spec: bool,
    /// Write the first protocol steps of one run to a file, as lines of JSON (`spec/README.md` describes them).
    #[arg(long, value_name = "FILE", requires = "seed", conflicts_with_all = ["trace", "spec", "json"])]
    export_steps: Option<PathBuf>,
    /// How many of them.
    #[arg(long, value_name = "N", default_value_t = 5000, requires = "export_steps")]
    export_most: u64,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Print how often everything has happened.
    #[arg(long)]
    counts: bool,
}

fn main() -> ExitCode {
    let Cli { command: Command::Run(args) } = Cli::parse();
    match run_all(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run_all(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let options = Options {
        profile: args.profile,
        nodes: args.nodes.map(usize::from),
        duration: args.seconds.map(|seconds| seconds * 1_000_000),
        ..Options::new(args.seed.unwrap_or_default())
    };
    if args.trace {
        let (result, _) = run_traced(&options, Trace::Print);
        let violation = result.err();
        if let Some(violation) = &violation {
            println!("{violation}");
        }
        return Ok(code(violation.as_ref()));
    }
    if let Some(file) = &args.export_steps {
        return Ok(code(quorate_sim::spec::cli::export(&options, args.export_most, file)?.as_ref()));
    }
    let seeds = args.seed.map_or_else(|| args.seeds.clone(), |seed| seed..seed + 1);
    ensure!(!seeds.is_empty(), "no seeds in {}..{}", seeds.start, seeds.end);
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // A panic in the core is a violation like any other, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    if args.spec {
        let held = quorate_sim::spec::cli::run(seeds, &options, jobs, args.json, args.counts)?;
        return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let started = clock();
    let bar = progress_bar(seeds.end - seeds.start);
    let simulated = Mutex::new(0);
    let summary = run_seeds(seeds, &options, jobs, |result| {
        let Ok(mut sum) = simulated.lock() else { return };
        *sum += result.as_ref().map_or(0, |report| report.simulated);
        let rate = *sum as f64 / 1e6 / started.elapsed().as_secs_f64();
        bar.set_message(format!("{rate:.0} simulated s/s"));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        println!("{}", as_json(&summary, seconds)?);
    } else {
        println!("{}", as_line(&summary, seconds));
        if args.counts {
            for (name, count) in summary.counts.iter() {
                println!("{count:>12} {name}");
            }
        }
        for (name, _) in summary.counts.iter().filter(|(_, count)| *count == 0) {
            eprintln!("never exercised: {name}");
        }
    }
    Ok(code(summary.violation.as_ref()))
}

const fn code(violation: Option<&Violation>) -> ExitCode {
    if violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn as_line(summary: &Summary, seconds: f64) -> String {
    let Summary { runs, simulated, counts, digest, violation } = summary;
    let totals = format!(
        "{runs} seeds, {:.0} simulated s, {} steps, {} commits, {} elections, {} crashes, {} cuts, {} reads in {seconds:.1} s \
         ({:.0} steps/s), digest {digest:016x}",
        *simulated as f64 / 1e6,
        counts[Count::Steps],
        counts[Count::Commits],
        counts[Count::Elections],
        counts[Count::Crashes],
        counts[Count::Cuts],
        counts[Count::Reads],
        counts[Count::Steps] as f64 / seconds,
    );
    match violation {
        None => format!("ok: {totals}"),
        Some(violation) => {
            format!("VIOLATION: {violation} (see it: run --seed {} --trace); {totals}", violation.seed)
        }
    }
}

fn as_json(summary: &Summary, seconds: f64) -> anyhow::Result<String> {
    let counts: serde_json::Map<String, serde_json::Value> =
        summary.counts.iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    serde_json::to_string(&serde_json::json!({
        "runs": summary.runs,
        "simulated_us": summary.simulated,
        "seconds": seconds,
        "digest": format!("{:016x}", summary.digest),
        "violation": summary.violation,
        "counts": counts,
    }))
    .context("the summary as JSON")
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("expected A..B, like 0..500")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(start)?..number(end)?)
}

fn progress_bar(seeds: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {msg}, {eta} left");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long runs take: not part of any run"
)]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}
