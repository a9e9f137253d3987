//! Steps as lines of JSON, for whoever wants to hold them against another specification.

use super::{judge::Event, node::Node};
use crate::{violation::Verdict, watch::Seen};

#[derive(Debug)]
pub(super) struct Exporter {}

impl Exporter {
    #[expect(clippy::unused_self, reason = "stub")]
    pub(super) fn see(&mut self, _at: u64, _seen: &Seen<'_>, _nodes: &[Node]) -> Verdict {
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "stub")]
    pub(super) fn step(&mut self, _at: u64, _event: &Event, _nodes: &[Node]) -> Verdict {
        Ok(())
    }
}
