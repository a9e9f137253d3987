//! As `core_cost`, with an allocator that counts: a program of its own, so that the counting isn't counted there.
//!
//! `cargo run --release -p quorate-benches --bin core_allocations -- entries --system quorate --payload 64 --batch 16`

use std::alloc::System;

use quorate_benches::core_cost::cli::{self, Allocations};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> anyhow::Result<()> {
    cli::main(Some(|| {
        let stats = ALLOCATOR.stats();
        Allocations {
            count: (stats.allocations + stats.reallocations) as u64,
            live_bytes: stats.bytes_allocated as i64 - stats.bytes_deallocated as i64,
        }
    }))
}
