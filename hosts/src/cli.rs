//! The command line.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use quorate_hosts::{
    faults::Kind,
    sandbox::{self, Refused},
    scenario::{
        Common, Report, nemesis, overload, rolling,
        slow::{self, Trouble},
        snapshot,
    },
};

/// Real quorate processes on several hosts of this machine, under real faults, judged by what their clients saw.
///
/// Each node has a network namespace of its own; root is not needed where users may have namespaces. Ends with 0 if all
/// is well, with 1 if a promise was broken, with 3 if it could not be run, with 77 and a reason if there are no namespaces.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    scenario: Scenario,
    /// The program `quorate` [default: beside this one]
    #[arg(long, global = true, value_name = "FILE")]
    quorate: Option<PathBuf>,
    /// What is drawn is drawn from this: the plan is the same, not the timing [default: another each time]
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// How many nodes
    #[arg(long, global = true, default_value = "3", value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// Keep stores and logs
    #[arg(long, global = true)]
    keep: bool,
    /// Hold it against limits in milliseconds too, which a busy machine may miss
    #[arg(long, global = true)]
    strict: bool,
    /// Print JSON: one object on one line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Partitions, delay, loss, stopped and killed processes, one after the other, under load
    Nemesis {
        /// So many seconds of faults, at least
        #[arg(long, default_value = "120")]
        seconds: u64,
        /// Each fault lasts so long at least, in milliseconds
        #[arg(long, default_value = "5000")]
        least: u64,
        /// Each fault lasts so long at most, in milliseconds
        #[arg(long, default_value = "8000")]
        most: u64,
        /// How long there is none after each, in milliseconds
        #[arg(long, default_value = "4000")]
        calm: u64,
        /// How many clients
        #[arg(long, default_value = "12")]
        clients: usize,
        /// How long each waits between an answer and its next request, in milliseconds
        #[arg(long, default_value = "40")]
        pause: u64,
        /// Only this kind; several may be given
        #[arg(long, value_enum)]
        only: Vec<Kind>,
    },
    /// Every node restarted, one after the other, under load
    Rolling {
        /// How often every node is
        #[arg(long, default_value = "3")]
        rounds: usize,
        /// How many clients
        #[arg(long, default_value = "12")]
        clients: usize,
    },
    /// More than the cluster can take
    Overload {
        /// For so many seconds
        #[arg(long, default_value = "60")]
        seconds: u64,
        /// It is looked for so many seconds what it can take
        #[arg(long, default_value = "10")]
        find: u64,
        /// How many times that
        #[arg(long, default_value = "2")]
        times: f64,
        /// Bytes of a value
        #[arg(long, default_value = "4096")]
        value_size: usize,
    },
    /// A slow node, and what the others' clients notice of it, in runs between runs with nothing wrong
    Slow {
        /// What is slow; several are run one after the other [default: all but every-disk]
        #[arg(long, value_enum)]
        what: Vec<Trouble>,
        /// How many pairs of runs for each
        #[arg(long, default_value = "20")]
        runs: usize,
        /// How long a run lasts, in milliseconds
        #[arg(long, default_value = "4000")]
        millis: u64,
        /// How many clients
        #[arg(long, default_value = "8")]
        clients: usize,
    },
    /// A snapshot on its way to a node that was down, and what the others' clients notice of it
    Snapshot {
        /// MiB of the snapshot
        #[arg(long, default_value = "1024")]
        mib: u64,
        /// MiB of it that are taken, sent and received a second [default: the program's]
        #[arg(long)]
        rate: Option<u64>,
        /// How many pairs of runs
        #[arg(long, default_value = "20")]
        runs: usize,
        /// How many clients
        #[arg(long, default_value = "8")]
        clients: usize,
    },
}

/// As test runners have it.
const UNAVAILABLE: u8 = 77;

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    // Before there are threads, and before anything is made.
    match sandbox::enter() {
        Ok(()) => {}
        Err(Refused::Unavailable(why)) => {
            println!("skipped: {why}");
            return ExitCode::from(UNAVAILABLE);
        }
        Err(Refused::Failed(error)) => {
            eprintln!("quorate-hosts: {error:#}");
            return ExitCode::from(3);
        }
    }
    match block_on(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("quorate-hosts: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn block_on(args: Args) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run(args) => ended,
            _interrupted = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    });
    // The router's threads wait for packets for ever.
    runtime.shutdown_background();
    ended
}

async fn run(args: Args) -> Result<bool> {
    let program = match args.quorate {
        Some(program) => program.canonicalize().with_context(|| format!("{}", program.display()))?,
        None => std::env::current_exe()?.with_file_name("quorate"),
    };
    anyhow::ensure!(program.exists(), "there is no {}: cargo build -p quorate-coord", program.display());
    let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64 % 1_000_000);
    let common = Common {
        program,
        seed: args.seed.unwrap_or(now),
        nodes: args.nodes.into(),
        keep: args.keep,
        strict: args.strict,
    };
    eprintln!("seed {}", common.seed);
    match args.scenario {
        Scenario::Nemesis { seconds, least, most, calm, clients, pause, only } => {
            let options = nemesis::Options {
                common,
                faults: Duration::from_secs(seconds),
                lasts: (Duration::from_millis(least), Duration::from_millis(most)),
                calm: Duration::from_millis(calm),
                clients,
                pause: Duration::from_millis(pause),
                only,
            };
            show(&nemesis::run(&options).await?, args.json)
        }
        Scenario::Rolling { rounds, clients } => {
            show(&rolling::run(&rolling::Options { common, rounds, clients }).await?, args.json)
        }
        Scenario::Overload { seconds, find, times, value_size } => {
            let [find, overload] = [find, seconds].map(Duration::from_secs);
            let options = overload::Options { common, find, overload, times, value_size };
            show(&overload::run(&options).await?, args.json)
        }
        Scenario::Slow { what, runs, millis, clients } => {
            let troubles = if what.is_empty() { slow::BEARABLE.to_vec() } else { what };
            let run = Duration::from_millis(millis);
            show(&slow::run(&slow::Options { common, troubles, runs, run, clients }).await?, args.json)
        }
        Scenario::Snapshot { mib, runs, clients, rate } => {
            show(&snapshot::run(&snapshot::Options { common, mib, runs, clients, rate }).await?, args.json)
        }
    }
}

/// Prints it, and says whether all is well.
fn show(report: &impl Report, json: bool) -> Result<bool> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        print!("{report}");
    }
    let failures = report.failures();
    for failure in &failures {
        eprintln!("FAILED: {failure}");
    }
    Ok(failures.is_empty())
}
