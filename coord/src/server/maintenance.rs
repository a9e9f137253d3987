//! For operators.

use quorate_runtime_tokio::FreezeError;
use quorate_storage_redb::{ArchiveHeader, Identity};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::{
    ETCD_API_VERSION,
    context::Context,
    snapshot,
    status::{NO_LEADER, not_served, of_read},
};
use crate::pb::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
    maintenance_server::Maintenance,
};

#[async_trait]
impl Maintenance for Context {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        match AlarmAction::try_from(request.into_inner().action) {
            Ok(AlarmAction::Get) => {
                let revision = self.revision().await?;
                Ok(Response::new(AlarmResponse { header: Some(self.header(revision)), alarms: vec![] }))
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_) => {
                Err(not_served("Alarm but for GET"))
            }
        }
    }

    /// About the node that is asked: it answers without a leader too.
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (revision, bytes) = self.read(true, |machine| Ok((machine.revision(), machine.bytes()))).await?;
        let status =
            self.node.status().await.map_err(|_stopped| Status::unavailable("etcdserver: server stopped"))?;
        let (raft, id) = (status.raft, self.node.id());
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: Some(self.header(revision)),
            version: ETCD_API_VERSION.to_owned(),
            db_size: bytes,
            leader: raft.leader.map_or(0, |leader| leader.0),
            raft_index: raft.commit.0,
            raft_term: raft.term.0,
            raft_applied_index: raft.applied.0,
            errors: if raft.leader.is_none() { vec![NO_LEADER.to_owned()] } else { vec![] },
            db_size_in_use: bytes,
            is_learner: !raft.membership.is_voter(id),
        }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Err(not_served("Defragment"))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (revision, digest) =
            self.read(true, |machine| Ok((machine.revision(), machine.digest()))).await?;
        // Its lower half: it is as good as any other.
        let hash = (digest & u64::from(u32::MAX)) as u32;
        Ok(Response::new(HashResponse { header: Some(self.header(revision)), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let upto = request.into_inner().revision;
        let (revision, compacted, (hash, hashed)) = self
            .read(true, move |machine| Ok((machine.revision(), machine.compacted(), machine.hash_kv(upto)?)))
            .await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.header(revision)),
            hash,
            compact_revision: compacted,
            hash_revision: hashed,
        }))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    /// From any node, with everything that was acknowledged before.
    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let permit = self.snapshots.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("etcdserver: too many requests: this node sends snapshots already")
        })?;
        let (snapshot, frozen) = self.node.freeze().await.map_err(|error| match error {
            FreezeError::Read(error) => of_read(&error),
            FreezeError::Unsupported => Status::internal(format!("quorate: {error}")),
        })?;
        let identity = Identity { cluster: self.cluster.id.into(), node: self.node.id() };
        let archive = ArchiveHeader { identity, group: self.node.group(), snapshot };
        Ok(Response::new(snapshot::send(frozen, archive, self.header(0), permit)))
    }

    async fn move_leader(
        &self,
        _: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(not_served("MoveLeader"))
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        Err(not_served("Downgrade"))
    }
}

impl Context {
    async fn revision(&self) -> Result<i64, Status> {
        self.read(true, |machine| Ok(machine.revision())).await
    }
}
