//! Sends one snapshot over one stream.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use super::{
    desk::Desk,
    erased::{AnyReader, StoreError},
    error::TransferError,
    frame::{self, Frame, Which},
    progress::{Listed, add},
};
use crate::transport::BoxStream;

/// A snapshot's bytes, for one transfer and those that go on with it.
pub(crate) type Bytestore = Arc<Mutex<Box<dyn AnyReader>>>;

/// How a snapshot is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// By the leader, for the receiver's core.
    Install,
    /// By another node on the leader's behalf, only to be staged.
    Stage,
}

/// Offers `which` and sends as much of it as the receiver lacks. Returns what the receiver has then, durably: it may be a later
/// one. Its core has been told, if that is the purpose.
///
/// # Errors
/// If it has not got there. What did is not lost: the next attempt goes on from it.
pub(crate) async fn send(
    desk: &Desk,
    stream: BoxStream,
    purpose: Purpose,
    which: &Which,
    bytes: Option<&Bytestore>,
    listed: &Listed,
) -> Result<Which, TransferError> {
    let stall = desk.limits.stall_timeout;
    let (mut from, mut to) = split(stream);
    let first = match purpose {
        Purpose::Install => Frame::Install(which.clone()),
        Purpose::Stage => Frame::Stage(which.clone()),
    };
    moving(stall, frame::open(&mut to, &first)).await?;
    let offset = match answer(&mut from, stall).await? {
        Frame::Accept { offset } if offset <= which.info.bytes => offset,
        Frame::Holds(held) => return adopt(&mut from, &mut to, stall, purpose, which, held).await,
        Frame::Done(done) => return checked(which, done),
        other => return Err(other.unexpected().into()),
    };
    let bytes = bytes.ok_or(TransferError::Lost)?;
    // Whatever it says from here on is its last word: it may come before all is sent.
    let signs = AtomicU64::new(0);
    let mut last_word = pin!(last_word(&mut from, &signs));
    let sent = tokio::select! {
        biased;
        early = &mut last_word => return done(which, early?),
        sent = chunks(desk, &mut to, which, bytes, offset, listed) => sent,
    };
    match sent {
        Ok(()) => {}
        // The other may have said why before it hung up.
        Err(error @ (TransferError::Broken(_) | TransferError::Stalled(_))) => {
            return match timeout(Duration::from_secs(1), last_word).await {
                Ok(Ok(frame)) => done(which, frame),
                Ok(Err(refused @ TransferError::Refused { .. })) => Err(refused),
                Ok(Err(_)) | Err(_) => Err(error),
            };
        }
        Err(error) => return Err(error),
    }
    loop {
        let before = signs.load(Relaxed);
        match timeout(stall, &mut last_word).await {
            Ok(last) => return done(which, last?),
            Err(_) if signs.load(Relaxed) > before => {}
            Err(_) => return Err(TransferError::Stalled(stall)),
        }
    }
}

/// The receiver has a snapshot already: the one offered, or a later one.
async fn adopt<R, W>(
    from: &mut R,
    to: &mut W,
    stall: Duration,
    purpose: Purpose,
    which: &Which,
    held: Which,
) -> Result<Which, TransferError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let held = checked(which, held)?;
    if purpose == Purpose::Stage {
        return Ok(held);
    }
    moving(stall, frame::write(to, &Frame::Adopt(held.clone()))).await?;
    let last = answer(from, stall).await?;
    done(&held, last)
}

fn done(which: &Which, frame: Frame) -> Result<Which, TransferError> {
    match frame {
        Frame::Done(done) => checked(which, done),
        other => Err(other.unexpected().into()),
    }
}

/// What the receiver has must be of the same term's leader, and no earlier than what it was offered.
fn checked(which: &Which, found: Which) -> Result<Which, TransferError> {
    let (offered, last) = (which.info.snapshot.last, found.info.snapshot.last);
    if found.term == which.term && (last == offered || last.index > offered.index) {
        Ok(found)
    } else {
        Err(Frame::Done(found).unexpected().into())
    }
}

async fn chunks<W: AsyncWrite + Unpin>(
    desk: &Desk,
    to: &mut W,
    which: &Which,
    bytes: &Bytestore,
    mut offset: u64,
    listed: &Listed,
) -> Result<(), TransferError> {
    let (total, stall) = (which.info.bytes, desk.limits.stall_timeout);
    listed.resume(offset);
    while offset < total {
        let left = usize::try_from(total - offset).unwrap_or(usize::MAX);
        let len = left.min(desk.limits.chunk_bytes);
        let chunk = read(desk, bytes, offset, len).await?;
        desk.send_throttle.pass(len).await;
        let frame = Frame::Chunk { offset, bytes: chunk };
        moving(stall, frame::write(to, &frame)).await?;
        offset += len as u64;
        listed.set(offset);
        add(&desk.board.sent_bytes, len as u64);
    }
    moving(stall, frame::write(to, &Frame::End)).await
}

/// Reads from the store, on a thread that may wait for the disk.
async fn read(desk: &Desk, bytes: &Bytestore, offset: u64, len: usize) -> Result<Bytes, TransferError> {
    let bytes = bytes.clone();
    let read = move || -> Result<Bytes, StoreError> {
        let mut reader = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = vec![0; len];
        let found = reader.read_at(offset, &mut out)?;
        if found < len {
            let (last, total) = (reader.info().snapshot.last, reader.info().bytes);
            return Err(format!("the snapshot at {last} ends before its {total} bytes").into());
        }
        Ok(out.into())
    };
    desk.runner.blocking(read).await.map_err(TransferError::Abandoned)?.map_err(TransferError::Store)
}

/// The next thing said that is more than a sign of life.
pub(super) async fn answer<R: AsyncRead + Unpin>(
    from: &mut R,
    stall: Duration,
) -> Result<Frame, TransferError> {
    loop {
        if let Some(frame) = more(moving(stall, frame::read(from)).await?)? {
            return Ok(frame);
        }
    }
}

/// The same, however long it takes; signs of life are counted.
async fn last_word<R: AsyncRead + Unpin>(from: &mut R, signs: &AtomicU64) -> Result<Frame, TransferError> {
    loop {
        match more(frame::read(from).await?)? {
            Some(frame) => return Ok(frame),
            None => add(signs, 1),
        }
    }
}

/// What is more than a sign of life.
fn more(frame: Frame) -> Result<Option<Frame>, TransferError> {
    match frame {
        Frame::Alive { .. } => Ok(None),
        Frame::Refused { reason, text } => Err(TransferError::Refused { reason, text }),
        frame => Ok(Some(frame)),
    }
}

/// Not for longer than this.
pub(super) async fn moving<T>(
    stall: Duration,
    future: impl Future<Output = Result<T, TransferError>>,
) -> Result<T, TransferError> {
    timeout(stall, future).await.unwrap_or(Err(TransferError::Stalled(stall)))
}

/// Ends a stream in good order, so that what was said last is not lost with it.
pub(super) async fn close<W: AsyncWrite + Unpin>(to: &mut W) {
    let _best_effort = timeout(Duration::from_secs(1), to.shutdown()).await;
}
