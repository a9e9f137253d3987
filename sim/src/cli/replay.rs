//! `replay`: what a file says is done again.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use quorate_sim::{Replayed, Trace};

use super::{code, hush_panics, read_schedule, write_page};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What `run` or `shrink` has written.
    file: PathBuf,
    /// Print everything that happens.
    #[arg(long, conflicts_with = "json")]
    trace: bool,
    /// Draw what happens, as a page for a browser, into this file.
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    html: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let schedule = read_schedule(&args.file)?;
    hush_panics();
    let replayed = match &args.html {
        None => schedule.replay(if args.trace { Trace::Print } else { Trace::Off }),
        Some(path) => {
            let (replayed, page) = schedule.replay_pictured();
            write_page(&page, path)?;
            replayed
        }
    };
    if args.json {
        let Replayed { violation, same, to_the_bit } = &replayed;
        let result = serde_json::json!({ "violation": violation, "same": same, "to_the_bit": to_the_bit });
        println!("{}", serde_json::to_string(&result).context("the result as JSON")?);
    } else {
        println!("{}", told(&replayed));
    }
    Ok(code(replayed.violation.as_ref()))
}

fn told(replayed: &Replayed) -> String {
    let Replayed { violation, same, to_the_bit } = replayed;
    let how = match (same, to_the_bit) {
        (true, true) => "as it was written down, to the bit",
        (true, false) => "the same invariant, but not all is as it was written down: the code has changed",
        (false, _) => "not what was written down: the code has changed",
    };
    violation.as_ref().map_or_else(
        || format!("ok: nothing is violated ({how})"),
        |violation| format!("VIOLATION: {violation} ({how})"),
    )
}
