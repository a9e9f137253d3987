//! Brings a snapshot to a peer, whatever it takes: over several streams, and from another node when this one is busy.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_core::{GroupId, Index, LogId, Message, NodeId, SnapshotInfo};
use tokio::{
    io::{AsyncWriteExt, split},
    sync::OwnedSemaphorePermit,
    time::sleep,
};
use tracing::{debug, info};

use super::{
    desk::{Desk, SnapshotSourcing},
    erased::AnySnapshots,
    error::TransferError,
    frame::{self, Frame, Reason, Which},
    progress::{Listed, SnapshotActivity, add},
    receive::blocking,
    send::{self, Bytestore, Purpose, answer, moving},
};
use crate::{
    metrics::Meter,
    transport::{BoxFuture, BoxStream, ForwardError},
};

/// Opens streams to the other nodes of a group.
pub(crate) trait Ways: Send + Sync + 'static {
    /// One to this node.
    fn open(&self, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>>;
}

/// A snapshot that a leader's core wants a peer to have.
pub(crate) struct Errand {
    pub(crate) desk: Arc<Desk>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) id: NodeId,
    pub(crate) group: GroupId,
    pub(crate) store: Arc<dyn AnySnapshots>,
    pub(crate) ways: Arc<dyn Ways>,
    pub(crate) to: NodeId,
    /// What its core is to be told, of this node's own newest snapshot.
    pub(crate) message: Message,
    /// Where this node's log begins: a snapshot from there on helps.
    pub(crate) least: Index,
    /// Nodes that have caught up, and so could send theirs; the best first.
    pub(crate) helpers: Vec<NodeId>,
}

/// So often in a row is tried again without a byte more having got there.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// So many others are asked.
const HELPERS: usize = 2;

impl Errand {
    /// Runs until the peer has it (and its core was told), or it is given up. To be dropped when it is not wanted any more:
    /// when this node leads no longer, or the peer has got what it lacked otherwise.
    pub(crate) async fn run(self) -> Result<(), TransferError> {
        let (node, group, to) = (self.id, self.group, self.to);
        let result = self.bring().await;
        match &result {
            Ok(which) => {
                add(&self.desk.board.sent, 1);
                info!(%node, %group, %to, last = %which.info.snapshot.last, "a snapshot was sent");
            }
            Err(error) => {
                add(&self.desk.board.sends_failed, 1);
                info!(%node, %group, %to, %error, "a snapshot could not be sent");
                // The core asks again as soon as it hears of it, which should not be at once.
                sleep(MAX_PAUSE / 5).await;
            }
        }
        result.map(|_which| ())
    }

    async fn bring(&self) -> Result<Which, TransferError> {
        let permit = match self.desk.limits.source {
            SnapshotSourcing::Never => None,
            SnapshotSourcing::WhenBusy => self.desk.sending.clone().try_acquire_owned().ok(),
            SnapshotSourcing::Always => None,
        };
        let ask = match self.desk.limits.source {
            SnapshotSourcing::Never => false,
            SnapshotSourcing::WhenBusy => permit.is_none(),
            SnapshotSourcing::Always => true,
        };
        if ask {
            for helper in self.helpers.iter().copied().filter(|helper| *helper != self.to).take(HELPERS) {
                match self.ask(helper).await {
                    Ok(which) => {
                        add(&self.desk.board.relayed, 1);
                        return Ok(which);
                    }
                    Err(error) => {
                        debug!(node = %self.id, group = %self.group, to = %self.to, %helper, %error, "no help with a snapshot");
                    }
                }
            }
        }
        let permit = match permit {
            Some(permit) => permit,
            None => self
                .desk
                .sending
                .clone()
                .acquire_owned()
                .await
                .map_err(|_closed| TransferError::Abandoned("the node stops".into()))?,
        };
        self.send_own(permit).await
    }

    /// Asks another node to send its newest snapshot, and then tells the peer's core of it.
    async fn ask(&self, helper: NodeId) -> Result<Which, TransferError> {
        let stall = self.desk.limits.stall_timeout;
        let activity = SnapshotActivity::Relaying { to: self.to, source: helper };
        let last = self.last()?;
        let listed = self.desk.board.list(&self.meter, self.group, activity, last, None);
        let (mut from, mut to) = split(moving(stall, self.open(helper)).await?);
        let relay = Frame::Relay { target: self.to, least: self.least, term: self.message.term };
        moving(stall, frame::open(&mut to, &relay)).await?;
        let which = match answer(&mut from, stall).await? {
            Frame::Done(which) if which.term == self.message.term => which,
            other => return Err(other.unexpected().into()),
        };
        if which.info.snapshot.last.index < self.least {
            return Err(Frame::Done(which).unexpected().into());
        }
        let _best_effort = to.shutdown().await;
        let stream = moving(stall, self.open(self.to)).await?;
        send::send(&self.desk, stream, Purpose::Install, &which, None, &listed).await
    }

    async fn send_own(&self, _permit: OwnedSemaphorePermit) -> Result<Which, TransferError> {
        let last = self.last()?;
        let (store, group) = (self.store.clone(), self.group);
        let listed = blocking(&self.desk.runner, move || store.list(group)).await?;
        let info =
            listed.into_iter().find(|info| info.snapshot.last == last).ok_or(TransferError::Gone(last))?;
        let bytes = open_snapshot(&self.desk, &self.store, group, &info).await?;
        let activity = SnapshotActivity::Sending { to: self.to };
        let listed = self.desk.board.list(&self.meter, group, activity, last, Some(info.bytes));
        let which = Which { term: self.message.term, info };
        let (mut failures, mut pause) = (0, PAUSE);
        loop {
            let before = listed.done();
            let error = match self.attempt(&which, &bytes, &listed).await {
                Ok(which) => {
                    listed.finish();
                    return Ok(which);
                }
                Err(error) => error,
            };
            // As long as something moves it is worth going on with the same bytes: the next ones would begin anew.
            if listed.done() > before {
                (failures, pause) = (0, PAUSE);
            }
            failures += 1;
            if !error.is_passing() || failures >= ATTEMPTS {
                return Err(error);
            }
            debug!(node = %self.id, group = %self.group, to = %self.to, %error, "sending a snapshot again in {pause:?}");
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn attempt(
        &self,
        which: &Which,
        bytes: &Bytestore,
        listed: &Listed,
    ) -> Result<Which, TransferError> {
        let stream = moving(self.desk.limits.stall_timeout, self.open(self.to)).await?;
        send::send(&self.desk, stream, Purpose::Install, which, Some(bytes), listed).await
    }

    async fn open(&self, to: NodeId) -> Result<BoxStream, TransferError> {
        Ok(self.ways.open(to).await?)
    }

    /// Which one the core means.
    fn last(&self) -> Result<LogId, TransferError> {
        match &self.message.body {
            quorate_core::Body::InstallSnapshot { snapshot } => Ok(snapshot.last),
            _ => Err(TransferError::Refusing {
                reason: Reason::None,
                text: "what should announce a snapshot is another message".into(),
            }),
        }
    }
}

/// Opens one for reading.
pub(super) async fn open_snapshot(
    desk: &Desk,
    store: &Arc<dyn AnySnapshots>,
    group: GroupId,
    info: &SnapshotInfo,
) -> Result<Bytestore, TransferError> {
    let (store, wanted) = (store.clone(), info.clone());
    let opened = blocking(&desk.runner, move || {
        // Another with other bytes may have taken its place since the look.
        Ok(store.open(group, wanted.snapshot.last)?.filter(|reader| *reader.info() == wanted))
    });
    let reader = opened.await?.ok_or(TransferError::Gone(info.snapshot.last))?;
    Ok(Arc::new(Mutex::new(reader)))
}
