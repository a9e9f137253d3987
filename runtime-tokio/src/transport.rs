//! How nodes reach each other: what the driver asks of a transport, and what a transport brings in.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use quorate_core::{GroupId, Message, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes in both directions. Its end, or its loss, is an error or the end for whoever reads or writes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream, whatever carries it.
pub type BoxStream = Box<dyn Stream>;

/// A future that owns all it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Carries messages between nodes, as well as it can: it may lose, delay, repeat and reorder them, but it vouches for who
/// sent them. Its queues are bounded: what does not fit is dropped, never waited for.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Brings in what arrives from now on. Called once, before the first send.
    fn start(&self, inbound: Arc<dyn Inbound>);

    /// Sends a message of `group` to `to`, or drops it. Never blocks.
    fn send(&self, group: GroupId, to: NodeId, message: Message);

    /// Hands a request to `to` and brings back its answer. Unlike messages, a request goes at most once.
    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>>;

    /// Opens a stream to `to` for something long, such as a snapshot. It gives way to all else that is under way between
    /// the two nodes, and whoever reads slowly slows down whoever writes. It ends with the connection.
    /// A transport that carries none, as by default, never delivers one: then followers that lag too far can't be helped.
    fn open(&self, _group: GroupId, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        Box::pin(async move { Err(ForwardError::NotDelivered { to, why: "no streams are carried".into() }) })
    }

    /// Stops: closes connections and takes nothing in any more.
    fn shutdown(&self) -> BoxFuture<()>;
}

/// Where a transport delivers.
pub trait Inbound: Send + Sync + 'static {
    /// A message has arrived. Never blocks; drops it if the node can't keep up.
    fn receive(&self, group: GroupId, from: NodeId, message: Message);

    /// Touch with `peer` is lost, and with it whatever was under way to it: its connection was closed, or is dead. Said after all
    /// that has come by that connection was delivered, and also if another took its place at once: who was started anew may
    /// not lead any more. Never blocks. Does nothing by default; a transport that can't know it need not say it.
    fn unreachable(&self, _peer: NodeId) {}

    /// The transport is in touch with `peer`, for the first time or again; so is a node of whom a message comes. Never blocks. Does
    /// nothing by default; a transport that can't know it need not say it.
    fn reachable(&self, _peer: NodeId) {}

    /// A request has been forwarded here.
    fn forwarded(
        &self,
        group: GroupId,
        from: NodeId,
        request: Bytes,
    ) -> BoxFuture<Result<Bytes, ForwardError>>;

    /// A peer has [opened](Transport::open) a stream. Never blocks; whoever doesn't want it drops it, as by default.
    fn opened(&self, _group: GroupId, _from: NodeId, _stream: BoxStream) {}
}

/// Why a forwarded request has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForwardError {
    /// It never left, or was refused before anything was done: it may be tried again.
    #[error("not delivered to node {to}: {why}")]
    NotDelivered {
        /// Where it should have gone.
        to: NodeId,
        /// Why it didn't.
        why: String,
    },
    /// Nothing was done, for there is too much under way to that node, or at it. Trying again at once would only add to it:
    /// whoever asked is told of overload.
    #[error("node {to} is busy: {why}")]
    Busy {
        /// Where it should have gone.
        to: NodeId,
        /// What there is too much of.
        why: String,
    },
    /// It left, and what became of it is not known.
    #[error("no answer from node {to}: {why}")]
    Unknown {
        /// Where it went.
        to: NodeId,
        /// What happened.
        why: String,
    },
}
