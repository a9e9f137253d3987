//! What real nodes record replays in the simulator's harness, step by step; and what was tampered with doesn't.

mod cluster;
mod damage;
mod notes;
mod tamper;
