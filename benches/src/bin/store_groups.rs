//! What thousands of groups in one store cost: to create, to open, to recover, to write, to keep in memory, to remove.
//!
//! `cargo run --release -p quorate-benches --bin store_groups -- [--dir DIR] [--groups N,N] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::store::groups::main()
}
