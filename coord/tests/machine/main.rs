//! The machine against what etcd does, one option and one error at a time, and against a naive model of it.

mod check;
mod model;
mod ranges;
mod snapshots;
mod support;
mod txns;
mod wire;
mod writes;
