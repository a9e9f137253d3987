//! What a node does with a stream that a peer has opened.

use std::sync::Arc;

use quorate_core::{GroupId, Index, NodeId, Term};
use tokio::io::{AsyncRead, AsyncReadExt, split};
use tracing::{debug, warn};

use super::{
    desk::Desk,
    erased::AnySnapshots,
    error::TransferError,
    frame::{self, Frame, Reason, Which},
    outgoing::{Ways, open_snapshot},
    progress::{SnapshotActivity, add},
    receive::{Inlet, Offered, blocking, receive, refusal, refusing, signs_of_life},
    send::{self, Purpose, close, moving},
};
use crate::{metrics::Meter, transport::BoxStream};

/// A node, as far as snapshots of one of its groups are concerned.
pub(crate) struct Local {
    pub(crate) desk: Arc<Desk>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) id: NodeId,
    pub(crate) group: GroupId,
    pub(crate) store: Arc<dyn AnySnapshots>,
    pub(crate) inlet: Arc<dyn Inlet>,
    /// How to reach others.
    pub(crate) ways: Arc<dyn Ways>,
}

/// Serves a stream to its end: stages what is offered, or sends a snapshot on another's behalf. To be dropped when the node stops.
pub(crate) async fn serve(local: &Local, from: NodeId, stream: BoxStream) {
    let (node, group) = (local.id, local.group);
    // Bounded: who opens streams without end is not listened to.
    let Ok(opening) = local.desk.opening.clone().try_acquire_owned() else {
        return debug!(%node, %group, %from, "stream dropped: too many are being opened");
    };
    let (mut stream, mut to) = split(stream);
    let stall = local.desk.limits.stall_timeout;
    let first = moving(stall, frame::read_opening(&mut stream)).await;
    drop(opening);
    let receiving = matches!(first, Ok(Frame::Install(_) | Frame::Stage(_)));
    let ended = match first {
        Ok(Frame::Install(which)) => {
            receive(local.offered(from, Purpose::Install, which), &mut stream, &mut to).await
        }
        Ok(Frame::Stage(which)) => {
            receive(local.offered(from, Purpose::Stage, which), &mut stream, &mut to).await
        }
        Ok(Frame::Relay { target, least, term }) => {
            let relay = local.relay(target, least, term);
            // Whoever has asked hangs up when he wants it no more.
            let sent = tokio::select! {
                sent = signs_of_life(&mut to, stall, || 0, relay) => sent.and_then(|sent| sent),
                gone = hung_up(&mut stream) => Err(gone),
            };
            match sent {
                Ok(which) => moving(stall, frame::write(&mut to, &Frame::Done(which))).await,
                Err(error) => Err(error),
            }
        }
        Ok(other) => Err(other.unexpected().into()),
        Err(error) => Err(error),
    };
    if let Err(error) = &ended {
        if receiving {
            add(&local.desk.board.receives_failed, 1);
        }
        match error {
            // A bug, an attack, or damage that TLS would have noticed.
            TransferError::Frame(_) => warn!(%node, %group, %from, %error, "a stream that can't be read"),
            TransferError::Store(_) => warn!(%node, %group, %from, %error, "a snapshot was not stored"),
            _ => debug!(%node, %group, %from, %error, "a transfer has ended early"),
        }
        if let Some(frame) = refusal(error) {
            let _best_effort = moving(stall, frame::write(&mut to, &frame)).await;
        }
    }
    close(&mut to).await;
}

impl Local {
    fn offered(&self, from: NodeId, purpose: Purpose, which: Which) -> Offered<'_> {
        let Self { desk, meter, store, inlet, group, .. } = self;
        Offered { desk, meter, store, inlet: &**inlet, group: *group, from, purpose, which }
    }

    /// Sends the newest snapshot that there is to `target`, for the leader of `term`.
    async fn relay(&self, target: NodeId, least: Index, term: Term) -> Result<Which, TransferError> {
        if target == self.id {
            return Err(refusing(Reason::None, "it is the target itself"));
        }
        // Whoever asks has others to ask: no queue here.
        let Ok(_permit) = self.desk.sending.clone().try_acquire_owned() else {
            return Err(refusing(Reason::Busy, "it sends as many snapshots as it may"));
        };
        let (store, group, applied) = (self.store.clone(), self.group, self.inlet.applied());
        let listed = blocking(&self.desk.runner, move || store.list(group)).await?;
        // One that was received and not installed may be beyond what is here: it is not this node's to vouch for.
        let info = listed.into_iter().rev().find(|info| {
            let last = info.snapshot.last;
            (least..=applied).contains(&last.index) && last.term <= term
        });
        let Some(info) = info else {
            let why = format!("it has no snapshot from index {least} on");
            return Err(refusing(Reason::None, &why));
        };
        let bytes = open_snapshot(&self.desk, &self.store, group, &info).await?;
        let activity = SnapshotActivity::Sending { to: target };
        let listed = self.desk.board.list(&self.meter, group, activity, info.snapshot.last, Some(info.bytes));
        let which = Which { term, info };
        let sent = async {
            let stream = self.ways.open(target).await?;
            send::send(&self.desk, stream, Purpose::Stage, &which, Some(&bytes), &listed).await
        };
        let sent = sent.await.inspect(|_which| listed.finish());
        let board = &self.desk.board;
        add(if sent.is_ok() { &board.sent } else { &board.sends_failed }, 1);
        sent
    }
}

/// Returns when the other end has closed, or says something that it has no reason to say.
async fn hung_up<R: AsyncRead + Unpin>(stream: &mut R) -> TransferError {
    match stream.read(&mut [0]).await {
        Ok(0) => TransferError::Broken(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => frame::Frame::End.unexpected().into(),
        Err(error) => error.into(),
    }
}
