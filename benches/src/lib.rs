//! What quorate costs, and what its peers cost in the same place: workloads that the binaries of this package run.

pub mod core_cost;
pub mod groups;
pub mod store;
