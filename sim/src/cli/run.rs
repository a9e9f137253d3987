//! `run`: many seeds over threads, or one with all that happens in it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, ensure};
use quorate_sim::{
    Count, Options, Profile, Schedule, Summary, Trace, Without, run_pictured, run_seeds, run_traced, spec,
    workload::Service,
};

use super::{clock, code, hush_panics, progress_bar, write_page, write_schedule};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// These seeds, the last one left out. With --for, from the first on.
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "0..100", conflicts_with = "seed")]
    seeds: Range<u64>,
    /// This seed alone.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Seed after seed, for so long: 90s, 10m, 2h.
    #[arg(long = "for", value_name = "TIME", value_parser = length, conflicts_with = "seed")]
    time: Option<Duration>,
    /// Which faults may be drawn.
    #[arg(long, value_enum, default_value = "everything")]
    profile: Profile,
    /// What is left out of whatever is drawn.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Without>,
    /// What runs on the nodes; drawn if not said.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Service::NAMES))]
    workload: Option<String>,
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
    /// Draw what happens, as a page for a browser, into this file: of the seed, or of the one that violates something.
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    html: Option<PathBuf>,
    /// Hold every protocol step against the specification `spec/quorate.tla` instead: the first steps of each run.
    #[arg(long, conflicts_with_all = ["trace", "html", "time"])]
    spec: bool,
    /// Write the first protocol steps of one run to a file, as lines of JSON (`spec/README.md` describes them).
    #[arg(long, value_name = "FILE", requires = "seed", conflicts_with_all = ["trace", "spec", "json", "html"])]
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
    /// Where to write down a run that fails; named after the profile and the seed if not said.
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Write nothing down.
    #[arg(long, conflicts_with = "schedule")]
    no_schedule: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        profile: args.profile,
        nodes: args.nodes.map(usize::from),
        duration: args.seconds.map(|seconds| seconds * 1_000_000),
        without: args.without.clone(),
        workload: args.workload.clone(),
        ..Options::new(args.seed.unwrap_or_default())
    };
    hush_panics();
    if args.trace {
        let violation = run_traced(&options, Trace::Print).0.err();
        if let Some(violation) = &violation {
            println!("{violation}");
        }
        return Ok(code(violation.as_ref()));
    }
    if let Some(file) = &args.export_steps {
        return Ok(code(spec::cli::export(&options, args.export_most, file)?.as_ref()));
    }
    let seeds = args.seed.map_or_else(|| args.seeds.clone(), |seed| seed..seed + 1);
    ensure!(!seeds.is_empty(), "no seeds in {}..{}", seeds.start, seeds.end);
    if args.spec {
        let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        return Ok(code(spec::cli::run(seeds, &options, jobs, args.json, args.counts)?.as_ref()));
    }
    let (summary, seconds) = run_all(args, &options, seeds);
    if args.json {
        println!("{}", as_json(&summary, seconds)?);
    } else {
        println!("{}", as_line(&summary, seconds, args));
        if args.counts {
            for (name, count) in summary.counts.iter() {
                println!("{count:>12} {name}");
            }
        }
        for count in Count::ALL.iter().filter(|count| summary.counts[**count] == 0) {
            if count.is_expected_in(args.profile) {
                eprintln!("never exercised: {}", count.name());
            }
        }
    }
    if let Some(path) = &args.html {
        match args.seed.or_else(|| summary.violation.as_ref().map(|violation| violation.seed)) {
            Some(seed) => write_page(&run_pictured(&Options { seed, ..options.clone() }).1, path)?,
            None => eprintln!("{} is not written: no seed violates anything", path.display()),
        }
    }
    if let Some(violation) = &summary.violation
        && !args.no_schedule
    {
        write_down(&Options { seed: violation.seed, ..options }, args.schedule.as_deref())?;
    }
    Ok(code(summary.violation.as_ref()))
}

fn run_all(args: &Args, options: &Options, seeds: Range<u64>) -> (Summary, f64) {
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let started = clock();
    let (seeds, bar) = match args.time {
        Some(time) => (
            seeds.start..u64::MAX,
            progress_bar(Some(time.as_secs()), "{bar:30} {elapsed}/{len} s, {prefix} seeds, {msg}"),
        ),
        None => {
            let template = "{bar:30} {pos}/{len} seeds, {per_sec}, {msg}, {eta} left";
            (seeds.clone(), progress_bar(Some(seeds.end - seeds.start), template))
        }
    };
    let so_far = Mutex::new((0, 0, 0));
    let go_on = || args.time.is_none_or(|time| started.elapsed() < time);
    let summary = run_seeds(seeds, options, jobs, go_on, |result| {
        let Ok(mut sum) = so_far.lock() else { return };
        if let Ok(report) = result {
            let events = report.counts[Count::Steps] - report.counts[Count::Ticks];
            *sum = (sum.0 + 1, sum.1 + report.simulated, sum.2 + events);
        }
        let seconds = started.elapsed().as_secs_f64();
        let (simulated, events) = (sum.1 as f64 / 1e6 / seconds, sum.2 as f64 / seconds);
        bar.set_message(format!("{simulated:.0} simulated s/s, {events:.0} events/s"));
        if args.time.is_some() {
            bar.set_prefix(sum.0.to_string());
            bar.set_position(seconds as u64);
        } else {
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    (summary, started.elapsed().as_secs_f64())
}

/// Runs the seed that failed once more, and writes down what was done.
fn write_down(options: &Options, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(schedule) = Schedule::record(options) else { return Ok(()) };
    let profile = serde_json::to_value(options.profile).context("the profile's name")?;
    let name = format!("quorate-sim-{}-{}.jsonl", profile.as_str().unwrap_or("run"), options.seed);
    let path = path.map_or_else(|| PathBuf::from(name), Path::to_owned);
    write_schedule(&schedule, &path)?;
    let path = path.display();
    if schedule.is_empty() {
        eprintln!("written down: {path} (the run as it was drawn). See it again: quorate-sim replay {path}");
    } else {
        let steps = schedule.len();
        eprintln!("written down: {path} ({steps} operations). Make it shorter: quorate-sim shrink {path}");
    }
    Ok(())
}

fn as_line(summary: &Summary, seconds: f64, args: &Args) -> String {
    let Summary { runs, simulated, counts, digest, violation } = summary;
    let events = counts[Count::Steps] - counts[Count::Ticks];
    let simulated = *simulated as f64 / 1e6;
    let totals = format!(
        "{runs} seeds, {simulated:.0} simulated s, {events} events, {} commits, {} elections, {} crashes, {} cuts, {} reads in \
         {seconds:.1} s ({:.1} seeds/s, {:.0} simulated s/s, {:.0} events/s), digest {digest:016x}",
        counts[Count::Commits],
        counts[Count::Elections],
        counts[Count::Crashes],
        counts[Count::Cuts],
        counts[Count::Reads],
        *runs as f64 / seconds,
        simulated / seconds,
        events as f64 / seconds,
    );
    match violation {
        None => format!("ok: {totals}"),
        Some(violation) => {
            format!(
                "VIOLATION: {violation} (see it: run --seed {}{} --trace); {totals}",
                violation.seed,
                flags(args)
            )
        }
    }
}

/// As it is called on the command line.
fn name_of(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What a seed means depends on these, too.
fn flags(args: &Args) -> String {
    let mut flags = String::new();
    if args.profile != Profile::Everything {
        flags += &format!(" --profile {}", name_of(&args.profile));
    }
    for kind in &args.without {
        flags += &format!(" --without {}", name_of(kind));
    }
    flags += &args.workload.as_ref().map_or_else(String::new, |workload| format!(" --workload {workload}"));
    flags += &args.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    flags += &args.seconds.map_or_else(String::new, |seconds| format!(" --seconds {seconds}"));
    flags
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

fn length(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = number.parse().map_err(|_| "expected a time, like 90s, 10m or 2h".to_owned())?;
    let seconds = match unit {
        None | Some('s') => Some(number),
        Some('m') => number.checked_mul(60),
        Some('h') => number.checked_mul(3600),
        Some(_) => None,
    };
    seconds.map(Duration::from_secs).ok_or_else(|| "expected a time, like 90s, 10m or 2h".to_owned())
}
