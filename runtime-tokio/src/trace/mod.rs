//! Spans from a proposal to its reply, over all the nodes that have a part in it.
//!
//! | span | on | from, to | fields |
//! | --- | --- | --- | --- |
//! | `propose` | the node asked | call, reply | `node`, `group`, `bytes`, `trace_id`, `outcome` |
//! | `forward` | the same, if it doesn't lead | request, answer | `node`, `group`, `leader` |
//! | `serve` | the leader | request, answer | `node`, `group`, `from`, `bytes`, `trace_id` |
//! | `append` | the leader | taken in, in the log | `node`, `group`, `term`, `index` |
//! | `commit` | the leader | in the log, committed | `node`, `group`, `term`, `index` |
//! | `apply` | the leader | committed, applied | `node`, `group`, `term`, `index` |
//!
//! `forward` is within `propose`; `append`, `commit` and `apply` are within `propose` or `serve`, one after the other. What a
//! state machine logs while it applies a command is within `apply`. `trace_id` is the same on all nodes: a request that is
//! forwarded carries its [`TraceContext`] along.
//!
//! Spans have the target [`TARGET`] and the level DEBUG: with `tracing-subscriber`'s `EnvFilter`,
//! `info,quorate::trace=debug` has them without the rest of what is logged at that level. If nobody wants them they cost a
//! look at a number or two for each proposal.
//!
//! # Where the trace comes from
//!
//! In this order: from the [`Propagator`], if there is one and somebody wants the span; from the
//! [scope](TraceContext::scope) that the caller runs in; or else it is a new one, made only if somebody wants the span.

mod context;
mod proposal;

use std::sync::OnceLock;

pub use context::{TraceContext, TraceId, TraceparentError};
pub(crate) use proposal::{Request, Stages};
use tracing::Span;

/// The target of all spans.
pub const TARGET: &str = "quorate::trace";

/// Joins the spans to those of a system that takes traces down, OpenTelemetry for one.
pub trait Propagator: Send + Sync + 'static {
    /// The context of what happens within `span`; nothing if it is in no trace.
    fn context(&self, span: &Span) -> Option<TraceContext>;

    /// Makes `span`, which is new, a child of what happened elsewhere.
    fn adopt(&self, span: &Span, parent: TraceContext);
}

/// There is a propagator already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is a propagator already")]
pub struct AlreadySet;

static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Sets the propagator of the whole process, once.
///
/// # Errors
/// If there is one.
pub fn set_propagator(propagator: impl Propagator) -> Result<(), AlreadySet> {
    PROPAGATOR.set(Box::new(propagator)).map_err(|_| AlreadySet)
}

/// The context of what happens within `span`, as far as the propagator knows it.
#[must_use]
pub fn context_of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() { None } else { PROPAGATOR.get()?.context(span) }
}

/// Makes `span`, which is new, a child of what happened elsewhere; does nothing without a propagator.
pub fn adopt(span: &Span, parent: TraceContext) {
    if let Some(propagator) = PROPAGATOR.get().filter(|_| !span.is_disabled()) {
        propagator.adopt(span, parent);
    }
}
