//! For operators.

use tonic::{Request, Response, Status, async_trait};

use super::{
    ETCD_API_VERSION,
    context::Context,
    status::{NO_LEADER, not_served},
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

    type SnapshotStream = tokio_stream::Empty<Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_served("Snapshot"))
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
