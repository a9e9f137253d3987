//! Whether the disk is given back when a log is compacted.
//!
//! `cargo run --release -p quorate-benches --bin store_space -- [--dir DIR] [--mib N] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::store::space::main()
}
