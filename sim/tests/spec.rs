//! Runs against the specification.

use quorate_sim::{Options, spec::run_against_spec};

#[test]
fn seeds_are_clean() {
    for seed in 0..20 {
        match run_against_spec(&Options::new(seed)) {
            Ok(held) => println!("{held:?}"),
            Err(violation) => panic!("{violation}"),
        }
    }
}
