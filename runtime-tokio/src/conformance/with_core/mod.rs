//! The core over the store: what it writes is what the store takes, and what it finds again is what it had.

mod cluster;
mod follower;

pub use cluster::agrees_in_a_cluster;
pub use follower::follows_a_leader;
