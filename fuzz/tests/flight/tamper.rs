//! Who changes a recording is found out: by the step, or by the invariant.

use std::{fs, path::PathBuf, slice::from_ref};

use quorate_core::NodeId;
use quorate_sim::flight::{FlightError, FlightViolation, replay};
use serde_json::{Value, json};

use crate::cluster::busy;

/// The lines of a recording.
pub(crate) type Lines = Vec<Value>;

pub(crate) fn read(file: &PathBuf) -> Lines {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn write(file: &PathBuf, lines: &Lines) {
    // A recording begins with its mark, which a map sorted by name doesn't.
    let text = lines.iter().map(|line| match line.get("quorate-flight") {
        None => format!("{line}\n"),
        Some(version) => format!("{{\"quorate-flight\":{version},{}\n", &unmarked(line)[1..]),
    });
    fs::write(file, text.collect::<String>()).unwrap();
}

fn unmarked(line: &Value) -> String {
    let mut line = line.clone();
    line.as_object_mut().unwrap().remove("quorate-flight");
    line.to_string()
}

fn violation(file: &PathBuf, lines: &Lines) -> FlightViolation {
    write(file, lines);
    match replay(from_ref(file)) {
        Err(FlightError::Violated(violation)) => *violation,
        other => panic!("{other:?}"),
    }
}

fn is_polled(line: &Value) -> bool {
    line.get("d").is_some()
}

/// Every count of steps after line `at`, within its life, by one less.
fn count_one_less(lines: &mut Lines, at: usize) {
    for line in lines[at..].iter_mut().take_while(|line| line.get("end").is_none()) {
        if let Some(n) = line.get_mut("n") {
            *n = json!(n.as_u64().unwrap() - 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_or_an_input_that_was_changed_is_named_with_its_step() {
    let cluster = busy(false).await;
    let file = cluster.file(NodeId(1));
    let whole = read(&file);
    write(&file, &whole);
    replay(from_ref(&file)).unwrap();

    let mut lines = whole.clone();
    let at = (100..).find(|at| is_polled(&lines[*at])).unwrap();
    lines[at]["d"] = json!("00c0ffee00c0ffee");
    let found = violation(&file, &lines);
    assert_eq!((found.invariant, found.line, found.node), ("replay", at as u64 + 1, 1), "{found}");
    assert_eq!(json!(found.step), lines[at]["n"]);

    // An input is gone: it is missing. Even if the counts say nothing of it, the core does something else.
    let mut lines = whole.clone();
    let at = (100..).find(|at| lines[*at].pointer("/1/Persisted").is_some()).unwrap();
    lines.remove(at);
    write(&file, &lines);
    let error = replay(from_ref(&file)).unwrap_err().to_string();
    assert!(error.contains("lines are missing"), "{error}");
    count_one_less(&mut lines, at);
    let found = violation(&file, &lines);
    assert!(["replay", "contract"].contains(&found.invariant) && found.line > at as u64, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_its_write_is_durable_is_d2() {
    let cluster = busy(true).await;
    let acks = |lines: &Lines, at: usize| {
        let alone = lines[at].pointer("/1/Persisted").is_some() && is_polled(&lines[at + 1]);
        // Early on the same commit may hold a vote, which is D1's.
        let late = lines[at + 1]["n"].as_u64().is_some_and(|n| n > 50);
        alone && late && lines[at + 1]["a"].to_string().contains("{\"Appended\":")
    };
    let (file, mut lines, at) = cluster
        .files()
        .into_iter()
        .find_map(|file| {
            let lines = read(&file);
            let at = (0..lines.len() - 1).find(|at| acks(&lines, *at))?;
            Some((file, lines, at))
        })
        .unwrap();
    // What it did then is done before it is told that the write is durable.
    lines.swap(at, at + 1);
    lines[at]["n"] = json!(lines[at]["n"].as_u64().unwrap() - 1);
    let found = violation(&file, &lines);
    assert_eq!((found.invariant, found.line), ("D2", at as u64 + 1), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_goes_back_is_found_within_a_life_and_over_a_restart() {
    let cluster = busy(true).await;
    let restarted =
        |file: &PathBuf| read(file).iter().filter(|line| line.get("recovered").is_some()).count() == 2;
    let file = cluster.files().into_iter().find(restarted).unwrap();
    let whole = read(&file);

    let mut lines = whole.clone();
    let start = lines.iter_mut().rfind(|line| line.get("recovered").is_some()).unwrap();
    start["recovered"]["hard_state"]["vote"] = json!(99);
    let found = violation(&file, &lines);
    assert!(["D3", "S2"].contains(&found.invariant), "{found}");

    let mut lines = whole;
    let writes_term = |line: &&mut Value| {
        let actions = line.get("a").and_then(Value::as_array);
        let term = |action: &Value| action.pointer("/Write/hard_state/term").and_then(Value::as_u64);
        actions.is_some_and(|actions| actions.iter().any(|action| term(action).is_some_and(|term| term > 1)))
    };
    let polled = lines.iter_mut().find(writes_term).unwrap();
    for action in polled["a"].as_array_mut().unwrap() {
        if let Some(term) = action.pointer_mut("/Write/hard_state/term") {
            *term = json!(0);
        }
    }
    polled["d"] = json!("0");
    let found = violation(&file, &lines);
    assert_eq!(found.invariant, "S7", "{found}");
}
