//! What is done to the cluster, and what is asked of it.

pub mod compare;
pub(crate) mod machine;
pub mod nemesis;
pub mod overload;
pub mod rolling;
pub mod slow;
pub mod snapshot;

use std::path::PathBuf;

/// What every scenario is given.
#[derive(Clone, Debug)]
pub struct Common {
    /// The program `quorate`.
    pub program: PathBuf,
    /// For what is drawn.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Keep stores and logs.
    pub keep: bool,
    /// Hold it against limits in milliseconds as well, which a busy machine may miss: see each scenario.
    pub strict: bool,
}

/// What a scenario has found: printed, as a table or as JSON; and what is wrong, which is empty if all is well.
pub trait Report: serde::Serialize + std::fmt::Display {
    /// What is wrong, in words.
    fn failures(&self) -> Vec<String>;
}
