//! A group for tests of what is around it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use quorate_core::{Input, Message, NodeId, RoleKind};

use super::Port;
use crate::{
    error::StopReason,
    metrics::{GroupSample, QueueSample},
    status::Counters,
    transport::{BoxFuture, BoxStream, ForwardError},
};

/// Keeps what it is told, and counts how often it is asked.
#[derive(Default)]
pub(super) struct Stub {
    pub(super) inputs: Mutex<Vec<Input>>,
    pub(super) turns: AtomicU64,
    pub(super) asked: AtomicU64,
    /// Reads that wait.
    pub(super) reads: AtomicU64,
    pub(super) counters: Counters,
}

impl Port for Stub {
    fn receive(&self, _: NodeId, _: Message) {}

    fn unreachable(&self, _: NodeId) {}

    fn reachable(&self, _: NodeId) {}

    fn forwarded(self: Arc<Self>, from: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move { Err(ForwardError::NotDelivered { to: from, why: "a test".into() }) })
    }

    fn opened(self: Arc<Self>, _: NodeId, _: BoxStream) {}

    fn input(&self, input: Input) {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).push(input);
    }

    fn fail(&self, why: StopReason) {
        panic!("{why}");
    }

    fn shutdown(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async {})
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }

    fn sample(self: Arc<Self>) -> BoxFuture<Option<GroupSample>> {
        let asked = self.asked.fetch_add(1, Relaxed) + 1;
        let queues = QueueSample { reads: self.reads.load(Relaxed), ..QueueSample::default() };
        Box::pin(async move {
            Some(GroupSample {
                role: RoleKind::Follower,
                has_leader: true,
                term: asked,
                commit: 0,
                applied: 0,
                last: 0,
                entries: 0,
                uncommitted_bytes: 0,
                unpersisted_bytes: 0,
                cached_bytes: 0,
                peers: vec![],
                queues,
            })
        })
    }
}
