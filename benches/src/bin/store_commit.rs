//! What a durable commit costs: a plain file's, redb's own in its several ways, and the store's, in one run.
//!
//! `cargo run --release -p quorate-benches --bin store_commit -- [--dir DIR] [--case 100,256,1] [--all] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::store::commits::main()
}
