//! Sentences of the Raft paper and of Ongaro's dissertation ("diss."), each with a test that fails where the core disobeys.
//!
//! Each test quotes what it holds the core to, and names a mutation of the core (`../mutants/`) that makes it fail:
//! `core/tests/mutants/run` applies them, one by one, and sees that it does.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod disruption;
mod durability;
mod elections;
mod figure3;
mod followers;
mod joint;
mod leases;
mod membership;
mod reads;
mod replication;
mod safety;
mod snapshots;
mod state;
mod support;
mod terms;
mod transfer;
