//! How long a store takes to open and recover, and in how much memory.
//!
//! `cargo run --release -p quorate-benches --bin store_open -- [--dir DIR] [--mib N] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::store::open::main()
}
