//! What a process of `quorate` tells about itself, and where Prometheus asks for it.
//!
//! [`Endpoint::open`] comes first, before a node is started: only what is told after it is seen. What happens is told as it
//! happens, by the node and by the services. What is a state is looked at once a second by [`watch`].
//!
//! `docs/metrics.md` lists it all; the names of this crate are [`names::ALL`], and those under which etcd has the same are
//! in [`etcd`].

mod endpoint;
pub mod etcd;
pub mod names;
mod peers;
#[cfg(target_os = "linux")]
mod process;
mod watch;

pub use endpoint::{Endpoint, EndpointError};
pub use watch::{Watched, watch};

/// Tells the recorder that is installed the units and meanings of all metrics that a process of `quorate` has.
pub fn describe() {
    quorate_runtime_tokio::metrics::describe();
    for metric in names::ALL {
        metric.describe();
    }
    etcd::describe();
}
