//! Sending the whole state to a client.

use std::{io, time::Duration};

use bytes::Bytes;
use quorate_core::{Frozen, Sink, StateError};
use quorate_storage_redb::{ArchiveHeader, ArchiveWriter};
use ring::digest;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{debug, warn};

use crate::{
    machine::SnapshotHead,
    pb::etcdserverpb::{ResponseHeader, SnapshotResponse},
};

/// About how many bytes go into one message.
const CHUNK: usize = 64 << 10;

/// How many messages may wait for the client.
const WAITING: usize = 4;

/// A client that takes nothing for so long is left: it holds on to an old state, and to one of few places.
const STALL: Duration = Duration::from_secs(60);

/// Writes the state out on a thread of its own, as fast as the client takes it. It ends, and gives `permit` back, when all
/// is sent or the client is gone. What waits in memory is bounded, however large the state.
pub(super) fn send(
    frozen: Box<dyn Frozen>,
    archive: ArchiveHeader,
    header: ResponseHeader,
    permit: OwnedSemaphorePermit,
) -> ReceiverStream<Result<SnapshotResponse, Status>> {
    let (messages, stream) = mpsc::channel(WAITING);
    let runtime = Handle::current();
    spawn_blocking(move || {
        let messages = Messages { runtime, messages };
        match write(&*frozen, &archive, header, &messages) {
            Ok(bytes) => debug!(bytes, at = %archive.snapshot.last, "a snapshot was sent"),
            // Nobody is left to be told.
            Err(error) if messages.messages.is_closed() => debug!(error, "a client has left a snapshot"),
            Err(error) => {
                warn!(error, "a snapshot could not be sent");
                let _gone = messages.send(Err(Status::aborted(format!("quorate: the snapshot: {error}"))));
            }
        }
        drop(permit);
    });
    ReceiverStream::new(stream)
}

fn write(
    frozen: &dyn Frozen,
    archive: &ArchiveHeader,
    mut header: ResponseHeader,
    messages: &Messages,
) -> Result<u64, StateError> {
    // Once without sending it, to know how long it is.
    let mut size = Size { bytes: 0, head: Vec::new(), messages };
    frozen.write(&mut size)?;
    header.revision = SnapshotHead::read(&mut &size.head[..])?.revision;
    let total = ArchiveWriter::archive_len(archive, size.bytes);
    let chunks = Chunks {
        messages,
        header,
        chunk: Vec::with_capacity(CHUNK),
        left: total,
        digest: digest::Context::new(&digest::SHA256),
    };
    let mut archive = Archive(ArchiveWriter::new(chunks, archive)?);
    frozen.write(&mut archive)?;
    let (mut chunks, _) = archive.0.finish()?;
    chunks.pass_on()?;
    if chunks.left > 0 {
        return Err(format!("it has {} bytes less than was counted", chunks.left).into());
    }
    let sha = chunks.digest.finish();
    let blob = Bytes::copy_from_slice(sha.as_ref());
    messages.send(Ok(SnapshotResponse { header: Some(header), remaining_bytes: 0, blob }))?;
    Ok(total)
}

/// To the client.
struct Messages {
    runtime: Handle,
    messages: mpsc::Sender<Result<SnapshotResponse, Status>>,
}

impl Messages {
    /// Waits until there is room.
    fn send(&self, message: Result<SnapshotResponse, Status>) -> io::Result<()> {
        let sent = self.runtime.block_on(self.messages.send_timeout(message, STALL));
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => {
                io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing any more")
            }
            mpsc::error::SendTimeoutError::Closed(_) => gone(),
        })
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}

/// Counts, and keeps the beginning.
struct Size<'a> {
    bytes: u64,
    head: Vec<u8>,
    messages: &'a Messages,
}

impl Sink for Size<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        if self.messages.messages.is_closed() {
            return Err(gone().into());
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let room = SnapshotHead::BYTES.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(room));
        Ok(())
    }
}

struct Archive<W>(ArchiveWriter<W>);

impl<W: io::Write> Sink for Archive<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        Ok(self.0.write(bytes)?)
    }
}

/// Gathers what is written into messages.
struct Chunks<'a> {
    messages: &'a Messages,
    header: ResponseHeader,
    chunk: Vec<u8>,
    /// How much there is to be sent yet.
    left: u64,
    digest: digest::Context,
}

impl Chunks<'_> {
    fn pass_on(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let blob = Bytes::from(std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK)));
        self.digest.update(&blob);
        let more = || io::Error::other("it has more bytes than were counted");
        self.left = self.left.checked_sub(blob.len() as u64).ok_or_else(more)?;
        let message = SnapshotResponse { header: Some(self.header), remaining_bytes: self.left, blob };
        self.messages.send(Ok(message))
    }
}

impl io::Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK.saturating_sub(self.chunk.len()));
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.chunk.len() >= CHUNK {
            self.pass_on()?;
        }
        Ok(taken)
    }

    /// Only [`Chunks::pass_on`] sends less than a whole message.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
