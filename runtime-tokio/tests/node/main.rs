//! Nodes end to end, over stores and networks in memory.

mod cluster;
mod failure;
mod load;
mod single;
mod support;
