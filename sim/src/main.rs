//! The simulator's command line: `run` seeds, `replay` what failed, `shrink` it.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Whole quorate clusters in virtual time, under faults, with every invariant checked after every step.
#[derive(Parser)]
#[command(name = "quorate-sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run seeds, until all are done or one of them violates an invariant (then the exit code is 1, and what was done is
    /// written to a file).
    #[command(
        after_help = "Examples:\n  quorate-sim run --seeds 0..500\n  quorate-sim run --for 10m --profile network --nodes 5\n  \
                            quorate-sim run --seed 42 --trace | less\n  quorate-sim run --seed 42 --html run.html"
    )]
    Run(cli::run::Args),
    /// Do again what a file says, and see whether it still violates something (then the exit code is 1).
    Replay(cli::replay::Args),
    /// Make a file shorter, while what it says violates the same.
    Shrink(cli::shrink::Args),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Run(args) => cli::run::run(&args),
        Command::Replay(args) => cli::replay::run(&args),
        Command::Shrink(args) => cli::shrink::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
