//! Streams for what is long, such as snapshots: opened by either side, two-way, behind everything else.
//!
//! Whoever reads slowly holds up the writer, by the stream's own window, and nobody else: the connection has room for the
//! windows of as many such streams as may be open (see `tls::transport_config`).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use quorate_core::GroupId;
use quorate_runtime_tokio::{BoxStream, ForwardError, Inbound};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::timeout,
};

use crate::{
    code::Code,
    link,
    peer::{Link, Peer},
    shared::Shared,
    stream::{GROUP, Kind, Violation, hello},
    version::BULK_SINCE,
};

/// What the side that is asked says first, if it takes the stream.
const ACCEPTED: u8 = 0;

/// Opens a stream to the peer; returns when the peer has taken it.
pub(crate) async fn open(
    shared: &Shared,
    peer: &Arc<Peer>,
    group: GroupId,
) -> Result<BoxStream, ForwardError> {
    let to = peer.id;
    let not_delivered = |why: String| ForwardError::NotDelivered { to, why };
    let link = peer.link().ok_or_else(|| not_delivered("there is no connection".into()))?;
    if link.version < BULK_SINCE {
        let spoken = link.version;
        return Err(not_delivered(format!(
            "the connection is of transport version {spoken}; streams came with version {BULK_SINCE}"
        )));
    }
    let Ok(slot) = link.bulk_out.clone().try_acquire_owned() else {
        let limit = shared.limits.bulk_streams;
        return Err(not_delivered(format!("{limit} streams to it are open already, which is the limit")));
    };
    match timeout(shared.limits.forward_timeout, begin(peer, &link, group, slot)).await {
        Ok(Ok(stream)) => {
            peer.bulk.opened.add(1);
            Ok(Box::new(stream))
        }
        Ok(Err(why)) => Err(not_delivered(why.to_string())),
        Err(_) => Err(not_delivered("the peer takes no stream in".into())),
    }
}

/// Takes in a stream that the peer has opened, whose hello has been read, and hands it on.
pub(crate) async fn serve(
    shared: &Shared,
    peer: &Arc<Peer>,
    link: &Link,
    mut send: SendStream,
    mut recv: RecvStream,
    inbound: &dyn Inbound,
) -> Result<(), Violation> {
    let mut group = [0; GROUP];
    match timeout(shared.limits.forward_timeout, recv.read_exact(&mut group)).await {
        Ok(Ok(())) => {}
        Ok(Err(ReadExactError::FinishedEarly(read))) => {
            return Err(Violation::Truncated { missing: GROUP - read });
        }
        // The peer has gone away, or says nothing: then the stream is let go of.
        Ok(Err(ReadExactError::ReadError(_))) | Err(_) => {
            let _already_closed = send.reset(Code::Abandoned.number());
            return Ok(());
        }
    }
    let Ok(slot) = link.bulk_in.clone().try_acquire_owned() else {
        peer.bulk.refused.add(1);
        let _already_closed =
            (send.reset(Code::TooManyStreams.number()), recv.stop(Code::TooManyStreams.number()));
        return Ok(());
    };
    let mut stream = Bulk::new(peer, send, recv, slot);
    let _closed_already = stream.send.set_priority(link::priority(Kind::Bulk));
    // One byte, and nothing before it: it always fits.
    if stream.send.write_all(&[ACCEPTED]).await.is_ok() {
        peer.bulk.accepted.add(1);
        peer.mark_steady(true);
        inbound.opened(GroupId(u64::from_le_bytes(group)), peer.id, Box::new(stream));
    }
    Ok(())
}

async fn begin(
    peer: &Arc<Peer>,
    link: &Link,
    group: GroupId,
    slot: OwnedSemaphorePermit,
) -> Result<Bulk, io::Error> {
    let (send, recv) = link.connection.open_bi().await.map_err(|err| io_error(&err))?;
    // From here on, giving up resets the stream.
    let mut stream = Bulk::new(peer, send, recv, slot);
    let _closed_already = stream.send.set_priority(link::priority(Kind::Bulk));
    let head = [&hello(link.version, Kind::Bulk)[..], &group.0.to_le_bytes()].concat();
    // A peer that refuses both ways may be heard first where the bytes go: what it says on the way back is the reason.
    let written = stream.send.write_all(&head).await.map_err(write_error);
    let mut status = [0];
    match stream.recv.read_exact(&mut status).await {
        Ok(()) if status == [ACCEPTED] => written.map(|()| stream),
        Ok(()) => Err(io::Error::other(format!("an answer of unknown kind {}", status[0]))),
        Err(ReadExactError::FinishedEarly(_)) => Err(io::Error::other("the peer answers nothing")),
        Err(ReadExactError::ReadError(err)) => Err(read_error(err)),
    }
}

/// One end of a stream. Dropped before it was shut down, it tells the other end that something is missing.
#[derive(Debug)]
struct Bulk {
    send: SendStream,
    recv: RecvStream,
    /// All that was written is to arrive: the end has been said.
    shut: bool,
    peer: Arc<Peer>,
    /// One of the streams that may be open.
    _slot: OwnedSemaphorePermit,
}

impl Bulk {
    fn new(peer: &Arc<Peer>, send: SendStream, recv: RecvStream, slot: OwnedSemaphorePermit) -> Self {
        peer.bulk.begun.add(1);
        Self { send, recv, shut: false, peer: peer.clone(), _slot: slot }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.peer.bulk.ended.add(1);
        if !self.shut {
            // Let go of as it is, it would end as if it were whole.
            let _already_closed = self.send.reset(Code::Abandoned.number());
        }
    }
}

impl AsyncRead for Bulk {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.recv.poll_read_buf(cx, buf)).map_err(read_error)?;
        self.peer.bulk.received_bytes.add((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bulk {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.send).poll_write(cx, buf)).map_err(write_error)?;
        self.peer.bulk.sent_bytes.add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is under way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.send
                .finish()
                .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the stream has been closed"))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn read_error(err: ReadError) -> io::Error {
    match err {
        ReadError::Reset(code) => gone(code),
        ReadError::ConnectionLost(err) => io_error(&err),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            io::Error::new(io::ErrorKind::NotConnected, err)
        }
    }
}

fn write_error(err: WriteError) -> io::Error {
    match err {
        WriteError::Stopped(code) => gone(code),
        WriteError::ConnectionLost(err) => io_error(&err),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            io::Error::new(io::ErrorKind::BrokenPipe, err)
        }
    }
}

/// The other end has let go of the stream.
fn gone(code: VarInt) -> io::Error {
    match Code::from_number(code) {
        Some(Code::TooManyStreams) => {
            io::Error::new(io::ErrorKind::ConnectionRefused, "the peer has as many streams open as it takes")
        }
        Some(Code::Abandoned) => {
            io::Error::new(io::ErrorKind::ConnectionReset, "the other end has let go of the stream")
        }
        _ => io::Error::new(
            io::ErrorKind::ConnectionReset,
            format!("the other end has let go of the stream, with code {code}"),
        ),
    }
}

fn io_error(err: &quinn::ConnectionError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, format!("the connection is lost: {err}"))
}
