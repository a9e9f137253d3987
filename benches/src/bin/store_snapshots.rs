//! How fast a snapshot is staged and read, in how much memory, and what the commits beside it notice.
//!
//! `cargo run --release -p quorate-benches --bin store_snapshots -- [--dir DIR] [--mib N] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::store::snapshots::main()
}
