//! The coordination engine's store on simulated nodes.
#![cfg(feature = "coord")]

use quorate_sim::{Count, Options, run_seeds};

#[test]
fn twenty_seeds_of_coord_are_clean() {
    let options = Options { workload: Some("coord".into()), ..Options::new(0) };
    let summary = run_seeds(0..20, &options, 2, || true, |_| {});
    assert_eq!(summary.violation, None);
    assert!(summary.counts[Count::Acknowledged] > 1000 && summary.counts[Count::Restores] > 0);
}
