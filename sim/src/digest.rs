//! One number for a whole run: a hash of every input and action, the same on every platform. Recordings of real nodes have the
//! same.

pub(crate) use quorate_core::recording::Digest;
