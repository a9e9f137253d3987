//! `shrink`: a file becomes shorter, while it says what breaks the same.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;

use super::{hush_panics, progress_bar, read_schedule, write_schedule};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What `run` has written.
    file: PathBuf,
    /// Where to write what is left; by default beside the file, as `….shrunk.jsonl`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How many runs it may take.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    runs: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let schedule = read_schedule(&args.file)?;
    hush_panics();
    let before = schedule.replay(quorate_sim::Trace::Off);
    if !before.same || before.violation.is_none() {
        bail!("{} doesn't break any more what it did: there is nothing to shrink", args.file.display());
    }
    let bar = progress_bar(Some(args.runs), "{bar:30} {pos} of at most {len} runs, {msg}");
    let shrunk = schedule.shrink(args.runs, &mut |progress| {
        bar.set_position(progress.runs);
        bar.set_message(format!("{} operations, {} nodes", progress.left, progress.nodes));
    });
    bar.finish_and_clear();
    let out = args.out.clone().unwrap_or_else(|| args.file.with_extension("shrunk.jsonl"));
    write_schedule(&shrunk, &out)?;
    if let Some(violation) = shrunk.violation() {
        println!("{violation}");
    }
    println!(
        "{} operations and {} nodes became {} and {}: {}",
        schedule.len(),
        schedule.nodes(),
        shrunk.len(),
        shrunk.nodes(),
        out.display()
    );
    Ok(ExitCode::SUCCESS)
}
