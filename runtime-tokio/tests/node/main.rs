//! Nodes end to end, over stores and networks in memory.

mod astray;
mod cluster;
mod control;
mod failure;
mod feed;
mod given_up;
mod groups;
mod health;
mod load;
mod opening;
mod own_storage;
mod pause;
mod sessions;
mod single;
mod sleep;
mod snapshot;
mod snapshots;
mod support;
