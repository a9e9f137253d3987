//! The command line: what each command takes, and how the program ends.

mod archive;
mod backup;
mod bench;
mod certificates;
mod client;
mod config;
mod dev;
mod failure;
mod inspect;
mod logs;
mod node_args;
mod otel;
mod recording;
mod recover;
mod restore;
mod serve;
mod supervise;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use failure::{Failure, Result};

const ABOUT: &str = "A coordination engine that speaks etcd's API, replicated by Raft";

const AFTER: &str = "\
Examples:
  quorate dev                          three nodes on this machine, for development
  quorate put greeting hello           write a key
  quorate get greeting                 read it back, from whichever node answers first
  quorate status --cluster             who leads, how far each node is
  quorate backup coord.backup          all of it, into a file

Exit codes:
  0  done (a key that does not exist is an empty answer, not a failure)
  1  failed; nothing was changed
  2  wrong usage
  3  a write was sent, but what became of it is not known: read before you
     try again";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, about = ABOUT, after_help = AFTER, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine, for development
    Dev(dev::Args),
    /// Run one node
    Serve(Box<serve::Args>),
    /// Write a key
    Put(client::PutCommand),
    /// Read a key, or a range of keys
    Get(client::GetCommand),
    /// Delete a key, or a range of keys
    Del(client::DelCommand),
    /// Compare, then do one of two lists of operations, atomically
    Txn(client::TxnCommand),
    /// Ask every endpoint how it is
    Status(client::StatusCommand),
    /// List the cluster's members
    Members(client::MembersCommand),
    /// Write the state of a running cluster into a file
    Backup(backup::Args),
    /// Make a node of a new cluster from a backup
    Restore(Box<restore::Args>),
    /// Show what a node's data directory, or a backup, holds; and check it
    Inspect(inspect::Args),
    /// Go on with one node, when the others are lost for good
    Recover(recover::Args),
    /// Measure a running cluster
    Bench(bench::Args),
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(format!("no threads to run on: {error}")).report(),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => dev::run(args).await,
            Command::Serve(args) => serve::run(*args).await,
            Command::Put(command) => command.run().await,
            Command::Get(command) => command.run().await,
            Command::Del(command) => command.run().await,
            Command::Txn(command) => command.run().await,
            Command::Status(command) => command.run().await,
            Command::Members(command) => command.run().await,
            Command::Backup(args) => backup::run(args).await,
            Command::Restore(args) => restore::run(*args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Recover(args) => recover::run(&args),
            Command::Bench(args) => bench::run(args).await,
        }
    });
    // A blocking read of the terminal must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let sub = sub.get_subcommands().find(|sub| sub.get_name() != "help").unwrap_or(sub);
            let help = sub.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "`quorate {}` has no examples", sub.get_name());
        }
    }
}
