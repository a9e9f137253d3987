//! Whose a store is, and how it is opened.

use std::fmt;

use quorate_core::NodeId;

/// Whose a store is: written at bootstrap, checked whenever it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The cluster's id, minted once, when the cluster is bootstrapped.
    pub cluster: u128,
    /// The node's id in it.
    pub node: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {:032x}", self.node, self.cluster)
    }
}

/// How a store is opened. The file is the same with any of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of the file that are kept in memory. Default 16 MiB: the protocol caches recent entries itself, so that
    /// only slow followers read here, and nothing was measured that is faster with more.
    pub cache_bytes: usize,
    /// Commit in two phases: a second `fdatasync` for each commit, after which damage to the newest commit is
    /// noticed even if the power failed right after it was acknowledged. Default off; see
    /// `docs/decisions/0001-durability-of-a-commit.md`.
    pub two_phase: bool,
    /// Check every page of the file when it is opened, not only after an unclean stop. Default on: without it, damage done
    /// to a store that was closed cleanly is noticed in entries and records, but may not be in redb's own pages.
    pub verify_on_open: bool,
    /// How many snapshots of a group are kept, from 1: the newest, which its log rests on, and those before it, as a
    /// second chance for whoever is in the middle of sending one. Default 2.
    pub keep_snapshots: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, two_phase: false, verify_on_open: true, keep_snapshots: 2 }
    }
}

impl Options {
    /// Sets [`Options::cache_bytes`].
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets [`Options::two_phase`].
    #[must_use]
    pub const fn two_phase(mut self, on: bool) -> Self {
        self.two_phase = on;
        self
    }

    /// Sets [`Options::keep_snapshots`].
    #[must_use]
    pub const fn keep_snapshots(mut self, count: usize) -> Self {
        self.keep_snapshots = count;
        self
    }

    /// Sets [`Options::verify_on_open`].
    #[must_use]
    pub const fn verify_on_open(mut self, on: bool) -> Self {
        self.verify_on_open = on;
        self
    }
}
