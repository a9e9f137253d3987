//! How a snapshot travels on a stream. All numbers are little-endian.
//!
//! Whoever opens a stream says first `QSNP` and the version, `1`, in one byte. Then both sides send frames:
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | kind |
//! | 4 | length of the body, at most 1 MiB and 64 bytes |
//! | … | body |
//! | 4 | CRC-32C of all that |
//!
//! | kind | from | body | |
//! | --- | --- | --- | --- |
//! | `1` install | sender | which | the leader offers its snapshot: the message is handed to the receiver's core once the bytes are there |
//! | `2` stage | sender | which | another node offers its own on the leader's behalf: it is only to be staged |
//! | `3` relay | leader | target 8, least index 8, term 8 | "send your newest snapshot to that node for me, if it is at that index or later" |
//! | `4` chunk | sender | offset 8, bytes | |
//! | `5` end | sender | | that was all |
//! | `6` adopt | sender | which | the receiver has it already: this message is to be handed to its core |
//! | `16` accept | receiver | offset 8 | bytes from there on are wanted |
//! | `17` holds | receiver | which | it has this one already, which is the one offered, or later |
//! | `18` alive | receiver | bytes 8 | it waits or works, and has so many |
//! | `19` done | receiver | which | it has this one, durably, and its core was told |
//! | `20` refused | receiver | reason 1, text | in any version |
//!
//! "Which" is: length of the snapshot 8, CRC-32C of the whole of it 4, and an InstallSnapshot message as between the cores, which says the leader's
//! term, the snapshot's last entry and the membership there.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_core::{Body, Index, Message, NodeId, SnapshotInfo, Term, wire};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{FrameError, TransferError};

const MAGIC: &[u8; 4] = b"QSNP";
const VERSION: u8 = 1;

/// The most bytes of a snapshot in one frame.
pub(crate) const MAX_CHUNK: usize = 1 << 20;
const MAX_BODY: usize = MAX_CHUNK + 64;
const HEAD: usize = 5;
const SUM: usize = 4;

/// Texts are cut to this: they are for people.
const MAX_TEXT: usize = 1024;

/// A snapshot, and the term of the leader for whom it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Which {
    pub(crate) term: Term,
    pub(crate) info: SnapshotInfo,
}

impl Which {
    /// What is handed to the receiver's core.
    pub(crate) fn message(&self) -> Message {
        let snapshot = Box::new(self.info.snapshot.clone());
        Message { term: self.term, body: Body::InstallSnapshot { snapshot } }
    }
}

/// One thing said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    Install(Which),
    Stage(Which),
    Relay { target: NodeId, least: Index, term: Term },
    Chunk { offset: u64, bytes: Bytes },
    End,
    Adopt(Which),
    Accept { offset: u64 },
    Holds(Which),
    Alive { bytes: u64 },
    Done(Which),
    Refused { reason: Reason, text: String },
}

/// Why a snapshot is not taken, or not sent for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// There are too many already.
    Busy,
    /// It has one under way for a leader of a later term.
    Stale,
    /// It has none that would do.
    None,
    /// Its store says no.
    Store,
    /// It can't read what it was sent.
    Unreadable,
    /// It could not be brought to the target.
    Failed,
    /// Another transfer has taken its place.
    Superseded,
    /// It stops, or there is no such group.
    Stopping,
    /// A reason that this release doesn't know.
    Other(u8),
}

impl Reason {
    const fn code(self) -> u8 {
        match self {
            Self::Busy => 1,
            Self::Stale => 2,
            Self::None => 3,
            Self::Store => 4,
            Self::Unreadable => 5,
            Self::Failed => 6,
            Self::Superseded => 7,
            Self::Stopping => 8,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Busy,
            2 => Self::Stale,
            3 => Self::None,
            4 => Self::Store,
            5 => Self::Unreadable,
            6 => Self::Failed,
            7 => Self::Superseded,
            8 => Self::Stopping,
            code => Self::Other(code),
        }
    }

    /// May it be gone when it is tried again in a moment?
    pub(crate) const fn is_passing(self) -> bool {
        match self {
            Self::Busy | Self::Unreadable | Self::Stopping => true,
            Self::Stale | Self::None | Self::Store | Self::Failed | Self::Superseded | Self::Other(_) => {
                false
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::Stale => "stale",
            Self::None => "none",
            Self::Store => "store",
            Self::Unreadable => "unreadable",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Stopping => "stopping",
            Self::Other(code) => return write!(f, "unknown reason {code}"),
        })
    }
}

impl Frame {
    const fn kind(&self) -> u8 {
        match self {
            Self::Install(_) => 1,
            Self::Stage(_) => 2,
            Self::Relay { .. } => 3,
            Self::Chunk { .. } => 4,
            Self::End => 5,
            Self::Adopt(_) => 6,
            Self::Accept { .. } => 16,
            Self::Holds(_) => 17,
            Self::Alive { .. } => 18,
            Self::Done(_) => 19,
            Self::Refused { .. } => 20,
        }
    }

    /// What it is, for people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Install(_) => "an offer",
            Self::Stage(_) => "an offer for another",
            Self::Relay { .. } => "a request to send for another",
            Self::Chunk { .. } => "a chunk",
            Self::End => "an end",
            Self::Adopt(_) => "an adoption",
            Self::Accept { .. } => "an acceptance",
            Self::Holds(_) => "the name of another snapshot",
            Self::Alive { .. } => "a sign of life",
            Self::Done(_) => "a last word",
            Self::Refused { .. } => "a refusal",
        }
    }

    /// As an error: it may not come here.
    pub(crate) const fn unexpected(&self) -> FrameError {
        FrameError::Unexpected { what: self.name() }
    }

    fn encode(&self) -> BytesMut {
        let room = match self {
            Self::Chunk { bytes, .. } => bytes.len(),
            _ => 256,
        };
        let mut out = BytesMut::with_capacity(HEAD + 64 + room);
        out.put_u8(self.kind());
        out.put_u32_le(0);
        match self {
            Self::Install(which)
            | Self::Stage(which)
            | Self::Adopt(which)
            | Self::Holds(which)
            | Self::Done(which) => {
                out.put_u64_le(which.info.bytes);
                out.put_u32_le(which.info.checksum);
                out.put_slice(&wire::encode(&which.message()).to_bytes());
            }
            Self::Relay { target, least, term } => {
                out.put_u64_le(target.0);
                out.put_u64_le(least.0);
                out.put_u64_le(term.0);
            }
            Self::Chunk { offset, bytes } => {
                out.put_u64_le(*offset);
                out.put_slice(bytes);
            }
            Self::End => {}
            Self::Accept { offset: number } | Self::Alive { bytes: number } => out.put_u64_le(*number),
            Self::Refused { reason, text } => {
                out.put_u8(reason.code());
                out.put_slice(&text.as_bytes()[..text.len().min(MAX_TEXT)]);
            }
        }
        let len = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX);
        out[1..HEAD].copy_from_slice(&len.to_le_bytes());
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        out
    }

    fn decode(kind: u8, mut body: Bytes) -> Result<Self, FrameError> {
        let size = FrameError::Size(kind);
        let exactly =
            |body: &Bytes, len: usize| if body.len() == len { Ok(()) } else { Err(FrameError::Size(kind)) };
        let frame = match kind {
            1 => Self::Install(which(kind, body)?),
            2 => Self::Stage(which(kind, body)?),
            3 => {
                exactly(&body, 24)?;
                let (target, least, term) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
                Self::Relay { target: NodeId(target), least: Index(least), term: Term(term) }
            }
            4 if body.len() > 8 && body.len() <= 8 + MAX_CHUNK => {
                Self::Chunk { offset: body.get_u64_le(), bytes: body }
            }
            4 => return Err(size),
            5 => {
                exactly(&body, 0)?;
                Self::End
            }
            6 => Self::Adopt(which(kind, body)?),
            16 => {
                exactly(&body, 8)?;
                Self::Accept { offset: body.get_u64_le() }
            }
            17 => Self::Holds(which(kind, body)?),
            18 => {
                exactly(&body, 8)?;
                Self::Alive { bytes: body.get_u64_le() }
            }
            19 => Self::Done(which(kind, body)?),
            20 if !body.is_empty() => {
                let reason = Reason::from_code(body.get_u8());
                let text = String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT)]).into_owned();
                Self::Refused { reason, text }
            }
            20 => return Err(size),
            kind => return Err(FrameError::Kind(kind)),
        };
        Ok(frame)
    }
}

fn which(kind: u8, mut body: Bytes) -> Result<Which, FrameError> {
    if body.len() < 12 {
        return Err(FrameError::Size(kind));
    }
    let (bytes, checksum) = (body.get_u64_le(), body.get_u32_le());
    let message = wire::decode(&body)?;
    let Body::InstallSnapshot { snapshot } = message.body else { return Err(FrameError::NotInstall) };
    Ok(Which { term: message.term, info: SnapshotInfo { snapshot: *snapshot, bytes, checksum } })
}

/// Says what kind of stream this is, and the first frame.
pub(crate) async fn open<W: AsyncWrite + Unpin>(stream: &mut W, first: &Frame) -> Result<(), TransferError> {
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u8(VERSION);
    out.put_slice(&first.encode());
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

/// Reads how a stream begins.
pub(crate) async fn read_opening<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Frame, TransferError> {
    let mut opening = [0; 5];
    stream.read_exact(&mut opening).await?;
    let [magic @ .., version] = opening;
    if magic != *MAGIC {
        return Err(FrameError::Magic.into());
    }
    if version != VERSION {
        return Err(FrameError::Version { found: version }.into());
    }
    read(stream).await
}

/// Writes one frame.
pub(crate) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Frame) -> Result<(), TransferError> {
    stream.write_all(&frame.encode()).await?;
    Ok(stream.flush().await?)
}

/// Reads one frame.
pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Frame, TransferError> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let [kind, length @ ..] = head;
    let len = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if len > MAX_BODY {
        return Err(FrameError::Long { len, most: MAX_BODY }.into());
    }
    let mut body = vec![0; len + SUM];
    stream.read_exact(&mut body).await?;
    let sum: [u8; SUM] = body.last_chunk().copied().unwrap_or_default();
    body.truncate(len);
    let (expected, found) = (u32::from_le_bytes(sum), crc32c::crc32c_append(crc32c::crc32c(&head), &body));
    if expected != found {
        return Err(FrameError::Checksum { expected, found }.into());
    }
    Ok(Frame::decode(kind, body.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{LogId, Membership, Snapshot};

    fn which() -> Which {
        let membership = Membership::of_voters([NodeId(1), NodeId(2)]);
        let snapshot = Snapshot { last: LogId::new(Term(3), Index(70)), membership };
        Which { term: Term(4), info: SnapshotInfo { snapshot, bytes: 1 << 40, checksum: 0xdead_beef } }
    }

    fn all() -> Vec<Frame> {
        vec![
            Frame::Install(which()),
            Frame::Stage(which()),
            Frame::Relay { target: NodeId(3), least: Index(5), term: Term(4) },
            Frame::Chunk { offset: 1 << 33, bytes: Bytes::from(vec![7; MAX_CHUNK]) },
            Frame::Chunk { offset: 0, bytes: Bytes::from_static(b"x") },
            Frame::End,
            Frame::Adopt(which()),
            Frame::Accept { offset: 9 },
            Frame::Holds(which()),
            Frame::Alive { bytes: 10 },
            Frame::Done(which()),
            Frame::Refused { reason: Reason::Busy, text: "two already".into() },
            Frame::Refused { reason: Reason::Other(99), text: String::new() },
        ]
    }

    #[tokio::test]
    async fn round_trips() {
        for frame in all() {
            let mut bytes = Vec::new();
            open(&mut bytes, &frame).await.unwrap();
            assert_eq!(read_opening(&mut bytes.as_slice()).await.unwrap(), frame);
        }
        for code in 0..=255 {
            assert_eq!(Reason::from_code(code).code(), code);
        }
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        for frame in all().into_iter().filter(|frame| frame.encode().len() < 1_000) {
            let whole = frame.encode();
            for len in 0..whole.len() {
                assert!(read(&mut &whole[..len]).await.is_err(), "{len} bytes of {frame:?}");
            }
            for bit in 0..whole.len() * 8 {
                let mut bad = whole.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&mut bad.as_ref()).await.is_err(), "bit {bit} of {frame:?}");
            }
        }
    }

    /// A frame with a right checksum, whatever is in it.
    fn forged(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(body);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    #[tokio::test]
    async fn what_no_release_sends_is_refused() {
        let other_kind =
            Message { term: Term(1), body: Body::ReadIndex { id: quorate_core::RequestId::default() } };
        let mut other = vec![0; 12];
        other.extend_from_slice(&wire::encode(&other_kind).to_bytes());
        for (kind, body) in [
            (1, &[][..]),
            (1, &[0; 12]),
            (1, &[1; 40]),
            (2, &other),
            (3, &[0; 23]),
            (3, &[0; 25]),
            (4, &[0; 8]),
            (4, &[0; MAX_CHUNK + 9]),
            (5, &[0]),
            (16, &[0; 7]),
            (18, &[0; 9]),
            (20, &[]),
            (0, &[]),
            (7, &[]),
            (255, &[]),
        ] {
            let found = read(&mut forged(kind, body).as_slice()).await;
            assert!(matches!(found, Err(TransferError::Frame(_))), "kind {kind}: {found:?}");
        }
        // Nothing is set aside for a length that is too long.
        let long = [4, 255, 255, 255, 255];
        let found = read(&mut &long[..]).await;
        assert!(matches!(found, Err(TransferError::Frame(FrameError::Long { .. }))), "{found:?}");
        for (opening, what) in [(b"QSNQ\x01", "no stream"), (b"QSNP\x02", "version 2")] {
            let error = read_opening(&mut &opening[..]).await.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
