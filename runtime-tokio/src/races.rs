//! What threads do to each other, in many orders. Each test in the modules of this name is a few threads that shuttle runs one
//! at a time, in orders drawn from a seed, changing over wherever one touches what they share ([`crate::sync`]). If all of
//! them wait that is a failure, too: so a wake-up that is lost is seen.
//!
//! What this can't see: the orders that weak memory adds. All that matters here is shared under locks, or is one atomic
//! number by itself.
//!
//! A failure prints its schedule, for `shuttle::replay`. With `RACES=100000` in the environment so many orders are tried
//! instead of those of every day, and others each time.

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

/// How many orders of each test are tried, by each way of drawing them.
const ORDERS: usize = 1_000;

/// Runs a test in many orders.
pub(crate) fn check(test: fn()) {
    let asked = std::env::var("RACES").ok();
    let asked = asked.map(|orders| orders.parse().expect("RACES is a number"));
    match asked {
        Some(orders) => run(test, RandomScheduler::new(orders)),
        None => run(test, RandomScheduler::new_from_seed(1, ORDERS)),
    }
    // Threads are held up so often, wherever they are, while all others go on: most bugs need one or two such moments.
    for times in [1, 2, 3] {
        match asked {
            Some(orders) => run(test, PctScheduler::new(times + 1, orders)),
            None => run(test, PctScheduler::new_from_seed(1, times + 1, ORDERS)),
        }
    }
}

fn run(test: fn(), scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    // Bytes of a thread's stack: unoptimised code, and a panic, take more than the default.
    config.stack_size = 256 << 10;
    // It warns that there are no other orders than `SeqCst`: see above.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(test);
}
