//! What idle groups cost: processor time and memory of three processes that each host a replica of every group.
//!
//! `cargo run --release -p quorate-benches --bin group_cost -- [--groups N] [--quiesce MS] [--seconds N] [--json]`

fn main() -> anyhow::Result<()> {
    quorate_benches::groups::main()
}
