//! Runs with something wrong, between runs with nothing wrong.

use std::{fmt, time::Duration};

use crate::history::{Op, Span};

/// By how much the slowest requests may be slower while something is wrong.
pub(crate) const MOST: f64 = 3.0;

/// What is noise, whatever the ratio: a control run this fast has no bad luck in it that a disturbed one could not have.
const FLOOR_MS: f64 = 5.0;

/// A run: when, on the clock of the load, and whether something was wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) disturbed: bool,
    /// Terms that began in it.
    pub(crate) elections: u64,
}

/// What came of all runs with one thing wrong.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Compared {
    /// What was wrong.
    pub what: String,
    /// How many pairs of runs.
    pub runs: usize,
    /// Terms that began in runs with it.
    pub elections: u64,
    /// In the others.
    pub control_elections: u64,
    /// All requests of the runs without it.
    pub control: Span,
    /// With it.
    pub disturbed: Span,
    /// How many times the p99 of the one the other is.
    pub ratio: f64,
    /// Of each pair, the two p99, in milliseconds.
    pub p99_ms: Vec<[f64; 2]>,
}

/// Compares what clients saw.
pub(crate) fn compare(what: &str, ops: &[Op], windows: &[Window]) -> Compared {
    let of = |disturbed: bool| windows.iter().filter(move |window| window.disturbed == disturbed);
    let elections = |disturbed| of(disturbed).map(|window| window.elections).sum();
    let pairs = of(false).zip(of(true));
    let p99 = |window: &Window| whole(ops, std::slice::from_ref(window)).p99_ms;
    let [control, disturbed] = [false, true].map(|which| whole(ops, &of(which).copied().collect::<Vec<_>>()));
    Compared {
        what: what.to_owned(),
        runs: pairs.clone().count(),
        elections: elections(true),
        control_elections: elections(false),
        control,
        disturbed,
        ratio: disturbed.p99_ms / control.p99_ms.max(f64::MIN_POSITIVE),
        p99_ms: pairs.map(|(control, disturbed)| [p99(control), p99(disturbed)]).collect(),
    }
}

/// All requests that ended in any of these. One that was begun before a run, while something else was wrong, is not the
/// run's.
fn whole(ops: &[Op], windows: &[Window]) -> Span {
    let within = |op: &&Op| {
        windows.iter().any(|window| window.from <= op.invoked && (window.from..window.to).contains(&op.ended))
    };
    let mut took: Vec<Duration> = ops.iter().filter(|op| op.is_ok()).filter(within).map(Op::took).collect();
    took.sort_unstable();
    let quantile = |q: f64| {
        let place = ((took.len() as f64 * q) as usize).min(took.len().saturating_sub(1));
        took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    let seconds: f64 = windows.iter().map(|window| (window.to - window.from).as_secs_f64()).sum();
    Span {
        per_second: took.len() as f64 / seconds.max(f64::MIN_POSITIVE),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    }
}

impl Compared {
    /// What is wrong, in words; of times only if it is `strict`.
    pub(crate) fn failures(&self, strict: bool) -> Vec<String> {
        let Self { what, elections, control, disturbed, ratio, .. } = self;
        let mut failures = Vec::new();
        if *elections > 0 {
            failures.push(format!("{what}: {elections} elections"));
        }
        if disturbed.per_second == 0.0 || control.per_second == 0.0 {
            failures.push(format!("{what}: nothing was answered"));
        }
        if strict && *ratio > MOST && disturbed.p99_ms > FLOOR_MS {
            let (p99, before) = (disturbed.p99_ms, control.p99_ms);
            failures.push(format!(
                "{what}: p99 {p99:.1} ms, {ratio:.1} times that of the control, {before:.1} ms"
            ));
        }
        failures
    }

    /// The head of a table of these.
    pub(crate) const HEAD: &str = "what                     runs  elections   control: /s     p50     p99     with it: /s     p50     p99   ratio";
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, runs, elections, control, disturbed, ratio, .. } = self;
        write!(
            f,
            "{what:<24} {runs:>4} {elections:>10}  {:>12.0} {:>7.1} {:>7.1}  {:>13.0} {:>7.1} {:>7.1}  {ratio:>5.2}×",
            control.per_second,
            control.p50_ms,
            control.p99_ms,
            disturbed.per_second,
            disturbed.p50_ms,
            disturbed.p99_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Outcome, Request};

    #[test]
    fn runs_are_compared_and_what_spans_two_is_left_out() {
        let ms = Duration::from_millis;
        let op = |from: u64, took: u64| Op {
            client: 0,
            node: 0,
            key: 0,
            request: Request::Get,
            invoked: ms(from),
            ended: ms(from + took),
            outcome: Outcome::Read(0),
            revision: 1,
        };
        let mut ops: Vec<Op> = (0..100).map(|n| op(n * 10, 2)).collect();
        ops.extend((100..200).map(|n| op(n * 10, 8)));
        // Begun while nothing was wrong.
        ops.push(op(500, 1_000));
        let window =
            |from, to, disturbed, elections| Window { from: ms(from), to: ms(to), disturbed, elections };
        let windows = [window(0, 1_000, false, 0), window(1_000, 2_000, true, 1)];
        let compared = compare("it", &ops, &windows);
        assert_eq!((compared.runs, compared.elections, compared.control_elections), (1, 1, 0));
        assert_eq!((compared.control.p99_ms, compared.disturbed.p99_ms, compared.ratio), (2.0, 8.0, 4.0));
        assert_eq!(compared.failures(false), ["it: 1 elections"]);
        assert_eq!(compared.failures(true).len(), 2);
    }
}
