//! What all services share.

use std::sync::Arc;

use quorate_runtime_tokio::Node;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use super::{Cluster, MAX_REQUESTS, MAX_SNAPSHOTS, status};
use crate::{
    machine::{Command, KvError, Machine, Response},
    pb::etcdserverpb::ResponseHeader,
};

/// A node and who it serves. All services are implemented for it.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) node: Node<Machine>,
    pub(super) cluster: Arc<Cluster>,
    /// How many more requests for keys may be under way.
    requests: Arc<Semaphore>,
    /// How many snapshots may be sent yet.
    pub(super) snapshots: Arc<Semaphore>,
}

impl Context {
    pub(super) fn new(node: Node<Machine>, cluster: Cluster) -> Self {
        let [requests, snapshots] = [MAX_REQUESTS, MAX_SNAPSHOTS].map(|most| Arc::new(Semaphore::new(most)));
        Self { node, cluster: Arc::new(cluster), requests, snapshots }
    }

    /// Lets one more request for keys be under way, until this is dropped.
    pub(super) fn admit(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.requests.try_acquire().map_err(|_full| status::too_many())
    }

    /// Has a command replicated and applied.
    pub(super) async fn propose(&self, command: Command) -> Result<Response, Status> {
        let reply = self.node.propose(command.encode()).await.map_err(|error| status::of_proposal(&error))?;
        reply.result.map_err(|error| status::of_request(&error))
    }

    /// Asks the machine: as it is on this node if `stale`, else with everything that was acknowledged before.
    pub(super) async fn read<R: Send + 'static>(
        &self,
        stale: bool,
        read: impl FnOnce(&Machine) -> Result<R, KvError> + Send + 'static,
    ) -> Result<R, Status> {
        let answer = if stale { self.node.read_stale(read).await } else { self.node.read(read).await };
        let answer = answer.map_err(|error| status::of_read(&error))?;
        answer.map_err(|error| status::of_request(&error))
    }

    /// The header of an answer, at this revision of the store; 0 where the store has no part in it.
    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster.id,
            member_id: self.node.id().0,
            revision,
            raft_term: self.node.leadership().borrow().term.0,
        }
    }

    /// The header of an answer of the machine, which knows only the revision.
    pub(super) fn fill(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        Some(self.header(header.map_or(0, |header| header.revision)))
    }
}
