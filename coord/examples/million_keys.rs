//! What a snapshot of a million keys costs: the figures in the documentation of `Machine::freeze`.
//!
//! `cargo run --release -p quorate-coord --example million_keys`

use quorate_coord::{
    machine::{Command, Machine},
    pb::etcdserverpb::PutRequest,
};
use quorate_core::StateMachine as _;

fn put(machine: &mut Machine, key: String, value: &str) {
    let put = PutRequest { key: key.into(), value: value.to_owned().into(), ..PutRequest::default() };
    machine.apply_command(Command::Put(put));
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut machine = Machine::new();
    let time = |what: &str, began: std::time::Instant| println!("{what}: {:?}", began.elapsed());
    let now = std::time::Instant::now;
    let began = now();
    let value = "x".repeat(100);
    for n in 0..1_000_000_u64 {
        // Keys in no order.
        let key = format!("key/{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        put(&mut machine, key, &value);
    }
    time("put 1,000,000", began);
    for round in 0..3 {
        for _ in 0..5 {
            let began = now();
            drop(machine.freeze().ok_or("it takes snapshots")?);
            time("freeze and let go", began);
        }
        let frozen = machine.freeze().ok_or("it takes snapshots")?;
        let began = now();
        for n in 0..10_000_u64 {
            let key = format!("key/{:016x}", (n * 97 + round).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            put(&mut machine, key, &value);
        }
        time("put 10,000 while it is held", began);
        let began = now();
        let mut bytes = Vec::new();
        frozen.write(&mut bytes)?;
        time(&format!("write {} bytes", bytes.len()), began);
        let began = now();
        drop(frozen);
        time("drop", began);
        let began = now();
        let restored = Machine::read_snapshot(&mut &bytes[..])?;
        time("restore", began);
        drop(restored);
    }
    let began = now();
    for n in 0..10_000_u64 {
        let key = format!("key/{:016x}", (n * 89).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        put(&mut machine, key, &value);
    }
    time("put 10,000 while none is held", began);
    Ok(())
}
