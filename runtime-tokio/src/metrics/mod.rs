//! What a node tells the [`metrics`] facade: its [names], and the handles through which they are told.
//!
//! Any recorder takes them: install one (`metrics::set_global_recorder`) *before* a node is started, for that is when the
//! node gets its handles. They are had once; what happens often is then told without looking anything up, and without a
//! recorder a call is a check for nothing. What is a state rather than an event (indexes, queues, lags) is looked at once a
//! second.

mod gauges;
mod meter;
pub mod names;

pub(crate) use gauges::{Gauges, GroupSample, QueueSample};
pub use meter::MetricsLevel;
pub(crate) use meter::{Failure, Meter, Meters, SnapshotKind, SnapshotMeter, StoreMeter};

/// Tells the recorder that is installed the units and meanings of all metrics of this crate. Nodes do it when they start;
/// more often does no harm.
pub fn describe() {
    for metric in names::ALL {
        metric.describe();
    }
}
