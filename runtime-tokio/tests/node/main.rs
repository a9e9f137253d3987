//! Nodes end to end, over stores and networks in memory.

mod cluster;
mod control;
mod failure;
mod groups;
mod health;
mod load;
mod own_storage;
mod pause;
mod single;
mod snapshot;
mod support;
