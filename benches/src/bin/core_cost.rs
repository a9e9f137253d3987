//! What an entry costs, with the system's allocator: what `benches/cost` counts instructions of.
//!
//! `cargo run --release -p quorate-benches --bin core_cost -- entries --system quorate --payload 64 --batch 16`

fn main() -> anyhow::Result<()> {
    quorate_benches::core_cost::cli::main(None)
}
