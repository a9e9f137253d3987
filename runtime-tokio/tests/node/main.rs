//! Nodes end to end, over stores and networks in memory.

mod astray;
mod cluster;
mod control;
mod failure;
mod load;
mod pause;
mod sessions;
mod single;
mod snapshot;
mod support;
