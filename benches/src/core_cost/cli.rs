//! The command line of the binaries: one case, and what it took.

use std::{fmt, hint::black_box, mem::size_of, time::Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};
use quorate_core::{Action, Apply, Batch, Body, Few, Input, Message, Raft, Run, Write};
use serde_json::{Value, json};

use super::{Case, System, idle::Groups};

/// What a process has allocated so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Allocations {
    /// Times that memory was asked for: allocations, and reallocations as well.
    pub count: u64,
    /// Bytes in use.
    pub live_bytes: i64,
}

/// The cost of the protocol alone. Counts nothing but time by itself: `benches/cost` runs it under callgrind.
#[derive(Parser, Debug)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Machine-readable.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Replicates commands through three nodes.
    Entries {
        /// What runs.
        #[arg(long, value_enum, default_value = "quorate")]
        system: System,
        /// Bytes in a command.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        payload: u32,
        /// Commands in a drive.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
        batch: u32,
        /// Drives before the measured ones [default: enough for queues to have grown and caches to be full].
        #[arg(long)]
        warmup: Option<usize>,
        /// Drives that are measured [default: as many as give a steady count].
        #[arg(long)]
        drives: Option<usize>,
    },
    /// Lets groups of three nodes live through election timeouts without anything to do.
    Idle {
        /// How many groups.
        #[arg(long, default_value_t = 10_000)]
        groups: usize,
        /// For how many election timeouts.
        #[arg(long, default_value_t = 1)]
        timeouts: u32,
    },
    /// Says how big the types are that are moved about most.
    Sizes,
}

/// Runs what the command line asks for. `allocations` says what was allocated so far, if anybody counts.
///
/// # Errors
/// If a node refuses something.
pub fn main(allocations: Option<fn() -> Allocations>) -> Result<()> {
    let Args { what, json } = Args::parse();
    let report = match what {
        What::Entries { system, payload, batch, warmup, drives } => {
            let (payload, batch) = (payload as usize, batch as usize);
            let warmup = warmup.unwrap_or(2200 / batch + 24);
            let drives = drives.unwrap_or(320 / batch + 20);
            entries(Case { system, payload, batch, warmup, drives }, allocations)?
        }
        What::Idle { groups, timeouts } => idle(groups, timeouts, allocations)?,
        What::Sizes => sizes(),
    };
    if json {
        println!("{}", report.0);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn entries(case: Case, allocations: Option<fn() -> Allocations>) -> Result<Report> {
    let Case { payload, batch, drives, .. } = case;
    let (ns, allocated) = case.run(|workload| measure(allocations, workload))?;
    let entries = (drives * batch) as f64;
    Ok(Report(json!({
        "system": format!("{:?}", case.system),
        "payload_bytes": payload,
        "batch": batch,
        "drives": drives,
        "ns_per_entry": ns / entries,
        "allocations_per_entry": allocated.map(|allocated| allocated.count as f64 / entries),
    })))
}

fn idle(count: usize, timeouts: u32, allocations: Option<fn() -> Allocations>) -> Result<Report> {
    let live = || allocations.map(|so_far| so_far().live_bytes);
    let before = live();
    let mut groups = Groups::new(count)?;
    let bytes = live().zip(before).map(|(after, before)| (after - before) as f64 / count as f64);
    let mut result = Ok(());
    let (ns, allocated) = measure(allocations, &mut || result = groups.idle_workload(timeouts));
    result?;
    black_box(&groups);
    let lives = count as f64 * f64::from(timeouts);
    Ok(Report(json!({
        "groups": count,
        "timeouts": timeouts,
        "ns_per_group_and_timeout": ns / lives,
        "allocations_per_group_and_timeout": allocated.map(|allocated| allocated.count as f64 / lives),
        "bytes_per_group": bytes,
    })))
}

fn measure(
    allocations: Option<fn() -> Allocations>,
    workload: &mut dyn FnMut(),
) -> (f64, Option<Allocations>) {
    let before = allocations.map(|so_far| so_far());
    let start = Instant::now();
    workload();
    let ns = start.elapsed().as_nanos() as f64;
    let after = allocations.map(|so_far| so_far());
    let allocated = after.zip(before).map(|(after, before)| Allocations {
        count: after.count - before.count,
        live_bytes: after.live_bytes - before.live_bytes,
    });
    (ns, allocated)
}

fn sizes() -> Report {
    Report(json!({
        "Action": size_of::<Action>(),
        "Apply": size_of::<Apply>(),
        "Batch": size_of::<Batch>(),
        "Body": size_of::<Body>(),
        "Few<Run>": size_of::<Few<Run>>(),
        "Input": size_of::<Input>(),
        "Message": size_of::<Message>(),
        "Raft": size_of::<Raft>(),
        "Run": size_of::<Run>(),
        "Write": size_of::<Write>(),
    }))
}

/// Names and values, as JSON or in lines.
struct Report(Value);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.as_object().into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::Number(number) if number.is_f64() => {
                    writeln!(f, "{name:<36} {:>14.3}", number.as_f64().unwrap_or_default())?;
                }
                Value::String(text) => writeln!(f, "{name:<36} {text:>14}")?,
                _ => writeln!(f, "{name:<36} {value:>14}")?,
            }
        }
        Ok(())
    }
}
