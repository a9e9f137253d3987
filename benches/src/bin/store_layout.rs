//! Other ways to lay the log out in redb, side by side.
//!
//! `cargo run --release -p quorate-benches --bin store_layout -- [--dir DIR] [--what values] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::store::layouts::main()
}
