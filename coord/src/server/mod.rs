//! The gRPC services over a running node: the part of etcd's v3 API in `proto/etcdserverpb/rpc.proto`, on any node.
//!
//! ```no_run
//! use quorate_coord::{machine::Machine, server};
//! use quorate_core::{Membership, NodeId};
//! use quorate_runtime_tokio::{MemoryStore, Node};
//! use tokio::net::TcpListener;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
//! let node = Node::builder(NodeId(1)).store(store).start(Machine::new()).await?;
//! let member = server::Member {
//!     id: 1,
//!     name: "alone".into(),
//!     peer_urls: vec![],
//!     client_urls: vec!["http://127.0.0.1:2379".into()],
//!     is_learner: false,
//! };
//! let cluster = server::Cluster { id: 42, members: vec![member] };
//! let listener = TcpListener::bind("127.0.0.1:2379").await?;
//! server::serve(node.clone(), cluster, listener, async {
//!     let _stopped = node.stopped().await;
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where it differs from etcd
//!
//! * What is not there is answered with UNIMPLEMENTED: leases, watches, authentication, changes of the membership,
//!   defragmentation, moving the leader.
//! * `Snapshot` sends an archive of quorate's own, not a database of etcd's, and so `etcdctl snapshot save` refuses it.
//! * `Hash` and `HashKV` are comparable between nodes of quorate, not with etcd's.
//! * A message that is larger than [`MAX_MESSAGE_BYTES`] is refused with OUT_OF_RANGE and tonic's words, where etcd says
//!   RESOURCE_EXHAUSTED with those of gRPC for Go. What is between 1.5 MiB and that is refused as by etcd.
//! * A transaction may be nested [`MAX_TXN_DEPTH`](crate::machine::MAX_TXN_DEPTH) deep. One that does nothing but compare
//!   is read like any other, where etcd asks only the node at hand, which may lag behind.
//! * A transaction that deletes a key by a range to the end of the key space, and then puts it with `ignore_value`, stores
//!   an empty value; etcd's server ends.

mod cluster;
mod context;
mod kv;
mod maintenance;
mod observe;
mod snapshot;
mod status;

use std::{future::Future, time::Duration};

use quorate_runtime_tokio::Node;
use tokio::{net::TcpListener, sync::oneshot, time::sleep};
use tonic::transport::server::{Server, TcpIncoming};

use crate::{
    machine::{MAX_REQUEST_BYTES, Machine},
    pb::{
        DESCRIPTORS,
        etcdserverpb::{
            cluster_server::ClusterServer, kv_server::KvServer, maintenance_server::MaintenanceServer,
        },
    },
};
use context::Context;

/// The release of etcd whose API is spoken, as far as it is: what `Status` answers as version. Clients decide by it
/// what they may ask for; it says nothing of quorate's own version.
pub const ETCD_API_VERSION: &str = "3.5.21";

/// How large a message may be that is taken in: a request, and 512 KiB for what surrounds it, as in etcd.
pub const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + (512 << 10);

/// How many requests a connection may have under way; more wait at the client.
pub const MAX_STREAMS: u32 = 256;

/// How many requests for keys one node has under way, of all connections together; more are refused at once with
/// RESOURCE_EXHAUSTED and etcd's words, "too many requests". `Compact` is not one of them: it makes room.
pub const MAX_REQUESTS: usize = 2048;

/// How many snapshots may be sent at once by one node; more are refused with RESOURCE_EXHAUSTED. What each holds on to costs
/// memory as the state goes on changing.
pub const MAX_SNAPSHOTS: usize = 2;

/// How much of a request may be on its way before it is read, for each stream and for a connection as a whole.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// After so much silence a client is asked whether it is still there, so that connections of dead ones don't pile up.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long requests under way have to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Who there is, as clients are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// The cluster's id.
    pub id: u64,
    /// Its members.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its node id.
    pub id: u64,
    /// A name for people.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Has it no vote?
    pub is_learner: bool,
}

/// Why it can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The definitions that it would tell about are not valid, which would be a bug.
    #[error("the interface definitions can't be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// They can't be read, which would be a bug, too.
    #[error("the interface definitions can't be read: {0}")]
    Definitions(#[from] prost::DecodeError),
}

/// Answers clients on `listener` until `shutdown` is ready, then lets requests under way end, for 2 s at most.
///
/// # Errors
/// If the server can't be set up, or fails.
pub async fn serve(
    node: Node<Machine>,
    cluster: Cluster,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let context = Context::new(node, cluster);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<KvServer<Context>>().await;
    let observe = observe::Observe::new(&[
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ])?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(observe)
        .add_service(KvServer::new(context.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(ClusterServer::new(context.clone()))
        .add_service(MaintenanceServer::new(context))
        .add_service(health_server)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, async {
            let _dropped = stopped.await;
        });
    let stop = async {
        shutdown.await;
        let _ended = stop.send(());
        sleep(GRACE).await;
    };
    tokio::select! {
        ended = server => ended?,
        () = stop => tracing::debug!("clients did not end their requests in time, and are left"),
    }
    Ok(())
}
