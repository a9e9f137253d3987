//! Stages a snapshot that a peer sends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{GroupId, Index, Message, NodeId, SnapshotInfo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedMutexGuard, OwnedSemaphorePermit},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{
    desk::{Desk, Turn},
    erased::{AnySnapshots, AnyWriter, StoreError},
    error::{FrameError, TransferError},
    frame::{self, Frame, Reason, Which},
    progress::{Listed, SnapshotActivity, add},
    send::{Purpose, moving},
};
use crate::{lane::Runner, metrics::Meter};

/// The node that a snapshot is for, as whoever stages it sees it.
pub(crate) trait Inlet: Send + Sync + 'static {
    /// Up to here its state machine is: what a snapshot includes up to there it needs no bytes of.
    fn applied(&self) -> Index;

    /// Hands a message to its core, as from `from`. What it announces is staged, durably, or applied here already.
    fn deliver(&self, from: NodeId, message: Message);
}

/// What a transfer is about, at the receiver.
pub(super) struct Offered<'a> {
    pub(super) desk: &'a Arc<Desk>,
    pub(super) meter: &'a Meter,
    pub(super) store: &'a Arc<dyn AnySnapshots>,
    pub(super) inlet: &'a dyn Inlet,
    pub(super) group: GroupId,
    pub(super) from: NodeId,
    pub(super) purpose: Purpose,
    pub(super) which: Which,
}

/// Takes what is offered. When this returns without an error the snapshot is published, its core has been told if that is
/// the purpose, and then the sender.
pub(super) async fn receive<R, W>(
    offered: Offered<'_>,
    stream: &mut R,
    to: &mut W,
) -> Result<(), TransferError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (desk, which) = (offered.desk, &offered.which);
    if let Some(held) = offered.held().await? {
        return offered.hand_over(held, stream, to).await;
    }
    let Some(turn) = desk.take_turn(offered.group, which.term) else {
        return Err(refusing(Reason::Stale, "another leader's snapshot of a later term is under way"));
    };
    let activity = SnapshotActivity::Receiving { from: offered.from };
    let (last, bytes) = (which.info.snapshot.last, which.info.bytes);
    let listed = desk.board.list(offered.meter, offered.group, activity, last, Some(bytes));
    let staging = tokio::select! {
        staging = offered.begin(&turn, to) => staging?,
        () = turn.superseded() => return Err(TransferError::Superseded),
    };
    // Another may have brought it while this one waited.
    if let Some(held) = offered.held().await? {
        staging.close().await;
        return offered.hand_over(held, stream, to).await.inspect(|()| listed.finish());
    }
    let ended = tokio::select! {
        ended = offered.stage(&staging, &listed, stream, to) => ended,
        () = turn.superseded() => Err(TransferError::Superseded),
    };
    // If it was cut short, whoever comes next goes on from here.
    staging.close().await;
    ended.inspect(|()| listed.finish())
}

impl Offered<'_> {
    /// What it has of this or a later one.
    async fn held(&self) -> Result<Option<Held>, TransferError> {
        let (last, group, store) = (self.which.info.snapshot.last, self.group, self.store.clone());
        if self.inlet.applied() >= last.index {
            return Ok(Some(Held::Applied));
        }
        // One that is damaged may be what this one is to take the place of: then it is as if there were none.
        let listed = blocking(&self.desk.runner, move || Ok(store.list(group).unwrap_or_default())).await?;
        let held = listed
            .into_iter()
            .rev()
            .find(|info| *info == self.which.info || info.snapshot.last.index > last.index);
        match held {
            Some(held) if held.snapshot.last.term > self.which.term => {
                Err(refusing(Reason::Stale, "it holds a snapshot of a later term"))
            }
            held => Ok(held.map(Held::Published)),
        }
    }

    async fn hand_over<R, W>(&self, held: Held, stream: &mut R, to: &mut W) -> Result<(), TransferError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let stall = self.desk.limits.stall_timeout;
        let info = match held {
            // The core needs nothing of the store then.
            Held::Applied => return self.conclude(to).await,
            Held::Published(info) => info,
        };
        let held = Which { term: self.which.term, info };
        moving(stall, frame::write(to, &Frame::Holds(held.clone()))).await?;
        if self.purpose == Purpose::Stage {
            return Ok(());
        }
        match moving(stall, frame::read(stream)).await? {
            Frame::Adopt(adopted) if adopted == held => {}
            other => return Err(other.unexpected().into()),
        }
        self.inlet.deliver(self.from, held.message());
        moving(stall, frame::write(to, &Frame::Done(held))).await
    }

    /// It is there: the core is told, then the sender.
    async fn conclude<W: AsyncWrite + Unpin>(&self, to: &mut W) -> Result<(), TransferError> {
        if self.purpose == Purpose::Install {
            self.inlet.deliver(self.from, self.which.message());
        }
        let done = Frame::Done(self.which.clone());
        moving(self.desk.limits.stall_timeout, frame::write(to, &done)).await
    }

    /// Waits its turn, and opens the store.
    async fn begin<W: AsyncWrite + Unpin>(
        &self,
        turn: &Turn,
        to: &mut W,
    ) -> Result<Arc<Staging>, TransferError> {
        let desk = self.desk;
        let waiting = async {
            let permit = desk.receiving.clone().acquire_owned().await;
            let slot = turn.staging.clone().lock_owned().await;
            permit.map(|permit| (permit, slot))
        };
        let waiting = timeout(desk.limits.queue_timeout, waiting);
        let (permit, slot) = match self.alive(to, None, waiting).await? {
            Ok(Ok(both)) => both,
            Ok(Err(_closed)) => return Err(refusing(Reason::Stopping, "the node stops")),
            Err(_elapsed) => {
                let waited = desk.limits.queue_timeout;
                return Err(refusing(
                    Reason::Busy,
                    &format!("no room for another snapshot within {waited:?}"),
                ));
            }
        };
        let (store, group, info) = (self.store.clone(), self.group, self.which.info.clone());
        let runner = desk.runner.clone();
        // Within the closure, so that they are let go of when the writer is, and not before.
        let open = move || {
            let writer = store.receive(group, &info)?;
            Ok(Staging { runner, writer: Mutex::new(Some(writer)), _slot: slot, _permit: permit })
        };
        self.alive(to, None, blocking(&desk.runner, open)).await?.map(Arc::new)
    }

    /// From the first byte that is missing to the publication.
    async fn stage<R, W>(
        &self,
        staging: &Arc<Staging>,
        listed: &Listed,
        stream: &mut R,
        to: &mut W,
    ) -> Result<(), TransferError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (desk, total) = (self.desk, self.which.info.bytes);
        let stall = desk.limits.stall_timeout;
        let mut expected = staging.staged();
        let mut unsynced = 0;
        let mut signed = Instant::now();
        listed.resume(expected);
        moving(stall, frame::write(to, &Frame::Accept { offset: expected })).await?;
        loop {
            match moving(stall, frame::read(stream)).await? {
                Frame::Chunk { offset, bytes } => {
                    let len = bytes.len() as u64;
                    if offset != expected || len > total - expected {
                        return Err(FrameError::Offset { expected, found: offset, total }.into());
                    }
                    desk.receive_throttle.pass(bytes.len()).await;
                    unsynced += len;
                    let sync = unsynced >= desk.limits.sync_bytes;
                    staging.write(bytes, sync).await?;
                    if sync {
                        unsynced = 0;
                    }
                    expected += len;
                    listed.set(expected);
                    add(&desk.board.received_bytes, len);
                }
                Frame::End if expected == total => break,
                other => return Err(other.unexpected().into()),
            }
            // The sender may have sent all there is, and wait while it lies in the stream.
            if signed.elapsed() >= stall / 4 {
                signed = Instant::now();
                moving(stall, frame::write(to, &Frame::Alive { bytes: expected })).await?;
            }
            // The log has brought what the snapshot would.
            if self.inlet.applied() >= self.which.info.snapshot.last.index {
                return self.conclude(to).await;
            }
        }
        // The whole is looked at and synced, which may take a while.
        let info = self.alive(to, Some(listed), staging.publish()).await??;
        debug_assert_eq!(info, self.which.info, "the store has compared length and checksum");
        add(&desk.board.received, 1);
        self.conclude(to).await
    }

    /// Gives signs of life while something takes its time.
    async fn alive<W: AsyncWrite + Unpin, T>(
        &self,
        to: &mut W,
        listed: Option<&Listed>,
        work: impl Future<Output = T>,
    ) -> Result<T, TransferError> {
        signs_of_life(to, self.desk.limits.stall_timeout, || listed.map_or(0, Listed::done), work).await
    }
}

/// Says now and then that this end is alive, while something takes its time.
pub(super) async fn signs_of_life<W: AsyncWrite + Unpin, T>(
    to: &mut W,
    stall: Duration,
    done: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> Result<T, TransferError> {
    let mut work = std::pin::pin!(work);
    let period = stall / 4;
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return Ok(result),
            _ = ticks.tick() => moving(stall, frame::write(to, &Frame::Alive { bytes: done() })).await?,
        }
    }
}

/// What a receiver has already.
enum Held {
    /// The state machine is there, or further.
    Applied,
    /// This, in its store.
    Published(SnapshotInfo),
}

/// What is being staged. A blocking thread may have it still when the transfer is over; room for another is made when it lets go.
pub(super) struct Staging {
    runner: Runner,
    writer: Mutex<Option<Box<dyn AnyWriter>>>,
    _slot: OwnedMutexGuard<()>,
    _permit: OwnedSemaphorePermit,
}

impl Staging {
    fn with<T>(
        &self,
        act: impl FnOnce(&mut Option<Box<dyn AnyWriter>>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        act(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn staged(&self) -> u64 {
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map_or(0, |writer| writer.staged())
    }

    async fn write(self: &Arc<Self>, bytes: Bytes, sync: bool) -> Result<(), TransferError> {
        let this = self.clone();
        blocking(&self.runner, move || {
            this.with(|writer| {
                let writer = writer.as_mut().ok_or("the staging is over")?;
                writer.write(&bytes)?;
                if sync { writer.sync() } else { Ok(()) }
            })
        })
        .await
    }

    async fn publish(self: &Arc<Self>) -> Result<SnapshotInfo, TransferError> {
        let this = self.clone();
        blocking(&self.runner, move || {
            this.with(|writer| writer.take().ok_or("the staging is over")?.publish())
        })
        .await
    }

    /// Keeps what there is for whoever goes on with it.
    async fn close(self: Arc<Self>) {
        let runner = self.runner.clone();
        let close = move || {
            // If that fails there is less to go on with, or nothing.
            let _kept = self.with(|writer| writer.take().map_or(Ok(()), |mut writer| writer.sync()));
            drop(self);
            Ok(())
        };
        let _abandoned = blocking(&runner, close).await;
    }
}

pub(super) fn refusing(reason: Reason, text: &str) -> TransferError {
    TransferError::Refusing { reason, text: text.to_owned() }
}

/// Does something with the store, on a thread that may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    runner: &Runner,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, TransferError> {
    runner.blocking(work).await.map_err(TransferError::Abandoned)?.map_err(TransferError::Store)
}

/// What the other is told of an error, if it is to be told.
pub(super) fn refusal(error: &TransferError) -> Option<Frame> {
    let text = error.to_string();
    let reason = match error {
        TransferError::Refusing { reason, text } => {
            return Some(Frame::Refused { reason: *reason, text: text.clone() });
        }
        // The stream is gone, or the other has said it itself.
        TransferError::Broken(_) | TransferError::Stalled(_) | TransferError::Open(_) => return None,
        TransferError::Refused { .. } | TransferError::Lost => Reason::Failed,
        TransferError::Frame(_) => Reason::Unreadable,
        TransferError::Store(_) => Reason::Store,
        TransferError::Gone(_) => Reason::None,
        TransferError::Superseded => Reason::Superseded,
        TransferError::Abandoned(_) => Reason::Stopping,
    };
    Some(Frame::Refused { reason, text })
}
