//! Certificates: the identity that a node shows, and a small authority for development.
//!
//! A node shows a chain that leads to one of the cluster's authorities, with [`node_name`](crate::node_name) as its
//! only DNS name, good for both sides of a connection (`serverAuth` and `clientAuth`). Any authority can issue such
//! certificates; [`Ca`] is one for development and tests.

mod ca;
mod files;
mod identity;

pub use ca::{Ca, Issued, Saved};
pub use files::PkiError;
pub use identity::Identity;
