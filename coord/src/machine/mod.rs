//! The replicated store: pure and deterministic.
