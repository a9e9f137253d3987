//! `quorate-sim flight`.

use std::{path::PathBuf, process::ExitCode};

use super::{FlightError, FlightReport, FlightViolation, Totals, how, replay_watched};
use crate::{MOST_EVENTS, Trace, Violation, picture::watched};

/// Replay what real nodes have recorded, with every invariant that this can decide.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
A recording is made by `quorate serve --record DIR`, or by Builder::record. Those of several nodes of one cluster are \
brought together. It is a ring: what is older is forgotten, and what can't be judged without it is not checked.
Exit code 1: an invariant is violated, or the core does something else than was recorded. 2: a file can't be read.

Examples:
  quorate-sim flight node-1/flight
  quorate-sim flight node-*/flight
  quorate-sim flight node-1/flight/group-0/kept-00001764028406000000 --trace | less")]
pub struct FlightArgs {
    /// Recordings: directories, or single segments.
    #[arg(required = true, value_name = "DIR")]
    files: Vec<PathBuf>,
    /// Print everything that happens.
    #[arg(long, conflicts_with = "json")]
    trace: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Draw the last of what happened, as a page for a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the command: prints what it came to, and says how.
#[must_use]
pub fn main(args: &FlightArgs) -> ExitCode {
    let result = fly(args);
    match &result {
        Ok(report) if args.json => println!("{}", json(&serde_json::json!({ "ok": report }))),
        Ok(report) => println!("{}", as_text(report)),
        Err(FlightError::Violated(violation)) if args.json => {
            println!("{}", json(&serde_json::json!({ "violation": violation })));
        }
        Err(FlightError::Violated(violation)) => println!("VIOLATION: {violation}"),
        Err(error) => eprintln!("error: {error}"),
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(FlightError::Violated(_)) => ExitCode::FAILURE,
        Err(_) => ExitCode::from(2),
    }
}

/// Replays, and draws what happens if somebody wants to see it.
fn fly(args: &FlightArgs) -> Result<FlightReport, FlightError> {
    let trace = if args.trace { Trace::Print } else { Trace::Off };
    let Some(path) = &args.html else { return replay_watched(&args.files, trace, Vec::new()).0 };
    let (result, page) = watched(MOST_EVENTS, "quorate: a flight", |watcher| {
        let (result, _) = replay_watched(&args.files, trace, vec![watcher]);
        let violation = match &result {
            Err(FlightError::Violated(violation)) => {
                let FlightViolation { invariant, at, what, .. } = &**violation;
                Some(Violation { invariant, seed: 0, at: *at, what: what.clone() })
            }
            Ok(_) | Err(_) => None,
        };
        (result, violation)
    });
    // What a flight has come to is worth more than its picture.
    match std::fs::write(path, page) {
        Ok(()) => eprintln!("drawn: {}", path.display()),
        Err(error) => eprintln!("{} can't be written: {error}", path.display()),
    }
    result
}

fn json(value: &serde_json::Value) -> String {
    value.to_string()
}

fn as_text(report: &FlightReport) -> String {
    let FlightReport { nodes, committed, leaders, messages, messages_from_elsewhere, duration } = report;
    let steps: u64 = nodes.iter().map(|node| node.steps).sum();
    let actions: u64 = nodes.iter().map(|node| node.actions).sum();
    let mut text = format!(
        "ok: {} nodes, {steps} steps and {actions} actions the same over {:.3} s; committed up to {committed}, {leaders} terms led, \
         {messages} messages seen to leave and arrive, {messages_from_elsewhere} from elsewhere",
        nodes.len(),
        *duration as f64 / 1e6
    );
    for Totals { node, lives, segments, midway, gaps, steps, refused, ended, torn, .. } in nodes {
        let torn = if *torn { ", with half a chunk" } else { "" };
        text.push_str(&format!(
            "\n  node {node}: {lives} lives in {segments} segments, {steps} steps, {refused} refused; the last ends: {}{torn}",
            how(*ended)
        ));
        if midway + gaps > 0 {
            text.push_str(&format!(
                "\n    met in the middle of a life {midway} times, and behind a gap {gaps} times: not checked there are the votes of \
                 that term (S1), what of its writes was durable (D1 to D3, S8), and requests that were open (T1, R1)"
            ));
        }
    }
    text
}
