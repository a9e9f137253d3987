//! Several hosts on one machine: real `quorate serve` processes, each in a network namespace of its own, under real
//! faults, judged by what their clients saw.
//!
//! - [`sandbox`]: namespaces of our own, gone when the program ends.
//! - `net`: the network between the hosts, with faults for each direction of each link.
//! - `cluster`: the processes. `faults`: what is done to them and to the network.
//! - `load` and `history`: clients, and what they saw. `judge`: whether that can be.
//! - `scenario`: what is run, and what is asked of it.
//!
//! `docs/faults.md` says what is tested how, and what was measured.

#[cfg(target_os = "linux")]
pub mod cluster;
#[cfg(target_os = "linux")]
pub mod faults;
pub mod history;
pub mod judge;
#[cfg(target_os = "linux")]
pub mod load;
#[cfg(target_os = "linux")]
pub mod net;
pub mod random;
pub mod sandbox;
#[cfg(target_os = "linux")]
pub mod scenario;
