//! What is on a stream: a hello, then frames. Bytes in, frames out, and the other way round; no I/O.

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_core::{Class, GroupId, Message, wire};

use crate::code::Code;

/// How every stream begins.
pub(crate) const MAGIC: [u8; 4] = *b"qrte";

/// The version of the stream's format that is written.
pub const VERSION: u8 = 1;

/// The versions that are read.
pub const KNOWN_VERSIONS: &[u8] = &[1];

/// Length, and group.
pub(crate) const ENVELOPE: usize = 4 + GROUP;
const GROUP: usize = 8;
const HELLO: usize = MAGIC.len() + 2;

/// A block shorter than this is copied next to its header: quinn keeps a list of what is unsent, and walking along many
/// tiny pieces costs more than copying them.
const SMALL: usize = 2 << 10;

/// A buffer that a big frame has grown is not kept beyond this.
const KEEP: usize = 1 << 20;

/// What a stream is for; the last byte of its hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Messages of one class.
    Messages(Class),
    /// One forwarded request, and its answer on the way back.
    Forward,
}

impl Kind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Messages(Class::Control) => 0,
            Self::Messages(Class::Append) => 1,
            Self::Forward => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Messages(Class::Control)),
            1 => Some(Self::Messages(Class::Append)),
            2 => Some(Self::Forward),
            _ => None,
        }
    }
}

/// Why what a peer sends can't be taken: no correct node of a known version sends it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a stream begins with {found:02x?}, not with {MAGIC:02x?}")]
    Magic { found: [u8; 4] },
    #[error("unknown transport version {found}; this node knows {KNOWN_VERSIONS:?}")]
    Version { found: u8 },
    #[error("a stream of an unknown or misplaced kind {found}")]
    Kind { found: u8 },
    #[error("a frame of {len} bytes is announced; from {GROUP} to {max} are allowed")]
    Length { len: u64, max: usize },
    #[error("a stream ends inside a frame, {missing} bytes early")]
    Truncated { missing: usize },
    #[error("{extra} bytes follow a forwarded request")]
    Trailing { extra: usize },
    #[error("a message that can't be read: {0}")]
    Message(#[from] wire::DecodeError),
}

impl Violation {
    /// How it is told to the peer.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Magic { .. } | Self::Kind { .. } => Code::Hello,
            Self::Version { .. } => Code::Version,
            Self::Length { .. } | Self::Truncated { .. } | Self::Trailing { .. } => Code::Frame,
            Self::Message(_) => Code::Message,
        }
    }
}

/// The first bytes of a stream.
pub(crate) fn hello(kind: Kind) -> [u8; HELLO] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, VERSION, kind.code()]
}

/// What precedes a frame's body of `len` bytes; `None` if no length can say it.
pub(crate) fn envelope(group: GroupId, len: usize) -> Option<[u8; ENVELOPE]> {
    let mut envelope = [0; ENVELOPE];
    let (length, id) = envelope.split_at_mut(4);
    length.copy_from_slice(&u32::try_from(len.checked_add(GROUP)?).ok()?.to_le_bytes());
    id.copy_from_slice(&group.0.to_le_bytes());
    Some(envelope)
}

/// Messages as few pieces of bytes: what is small is put together, what is big is passed on as it is.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    small: BytesMut,
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Packer {
    /// Adds a message; false if it is longer than any peer would take, and left out.
    pub(crate) fn push(&mut self, group: GroupId, message: &Message) -> bool {
        let frame = wire::encode(message);
        let len = frame.len();
        let Some(envelope) = envelope(group, len).filter(|_| len <= wire::MAX_FRAME) else {
            return false;
        };
        self.bytes += ENVELOPE + len;
        self.small.put_slice(&envelope);
        self.small.put_slice(&frame.head);
        for block in frame.blocks {
            if block.len() < SMALL {
                self.small.put_slice(&block);
            } else {
                self.flush();
                self.pieces.push(block);
            }
        }
        true
    }

    /// How many bytes are packed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What has been packed, in order. Call [`Packer::clear`] when it is written.
    pub(crate) fn pieces(&mut self) -> &mut [Bytes] {
        self.flush();
        &mut self.pieces
    }

    pub(crate) fn clear(&mut self) {
        self.small.clear();
        self.pieces.clear();
        self.bytes = 0;
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }
}

/// Finds the frames in what arrives. Grows with what has come, never by what was announced.
#[derive(Debug)]
pub(crate) struct Parser {
    buffer: Vec<u8>,
    /// How far `buffer` has been taken.
    at: usize,
    /// The longest body, without the group.
    max: usize,
}

impl Parser {
    /// For bodies of up to `max` bytes.
    pub(crate) const fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), at: 0, max }
    }

    /// Takes in what has come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEEP);
        } else if self.at > 0 {
            self.buffer.drain(..self.at);
        }
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The hello, once it is there. Each field is looked at as soon as it has come.
    pub(crate) fn hello(&mut self) -> Result<Option<Kind>, Violation> {
        let rest = self.rest();
        let begun = rest.len().min(MAGIC.len());
        if rest[..begun] != MAGIC[..begun] {
            let mut found = [0; MAGIC.len()];
            found[..begun].copy_from_slice(&rest[..begun]);
            return Err(Violation::Magic { found });
        }
        if let Some(&found) = rest.get(MAGIC.len()).filter(|found| !KNOWN_VERSIONS.contains(found)) {
            return Err(Violation::Version { found });
        }
        let Some(&code) = rest.get(MAGIC.len() + 1) else {
            return Ok(None);
        };
        self.at += HELLO;
        Kind::from_code(code).map(Some).ok_or(Violation::Kind { found: code })
    }

    /// The next whole frame, if it has come.
    pub(crate) fn next(&mut self) -> Result<Option<(GroupId, &[u8])>, Violation> {
        let Some(len) = self.announced()? else {
            return Ok(None);
        };
        let start = self.at + ENVELOPE;
        let end = self.at + 4 + len;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let group = self.buffer[self.at + 4..start].try_into().map_or(0, u64::from_le_bytes);
        self.at = end;
        Ok(Some((GroupId(group), &self.buffer[start..end])))
    }

    /// The stream has ended: was that between two frames?
    pub(crate) fn end(&self) -> Result<(), Violation> {
        let rest = self.rest().len();
        if rest == 0 {
            return Ok(());
        }
        let wanted = self.announced()?.map_or(ENVELOPE, |len| len + 4);
        Err(Violation::Truncated { missing: wanted.saturating_sub(rest) })
    }

    /// Is the frame that is coming of a length that may be, and nothing behind it? For streams of one frame.
    pub(crate) fn check_only(&self) -> Result<(), Violation> {
        let end = self.announced()?.map_or(usize::MAX, |len| len + 4);
        match self.pending().saturating_sub(end) {
            0 => Ok(()),
            extra => Err(Violation::Trailing { extra }),
        }
    }

    /// How many bytes have come and are not taken.
    fn pending(&self) -> usize {
        self.rest().len()
    }

    /// The length of the frame that is coming, looked at as soon as it is there.
    fn announced(&self) -> Result<Option<usize>, Violation> {
        let Some(len) = self.rest().first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*len);
        let (min, max) = (GROUP, self.max.saturating_add(GROUP));
        usize::try_from(len)
            .ok()
            .filter(|len| (min..=max).contains(len))
            .map(Some)
            .ok_or(Violation::Length { len: len.into(), max })
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{Body, Index, LogId, Run, Term};

    fn append(payload: usize) -> Message {
        let run = Run::commands(Term(3), Index(1), &[vec![7; payload]]).unwrap();
        Message {
            term: Term(3),
            body: Body::Append { prev: LogId::ZERO, commit: Index(0), entries: vec![run].into() },
        }
    }

    fn heartbeat(round: u64) -> Message {
        Message { term: Term(3), body: Body::Heartbeat { commit: Index(1), round, quiesce: false } }
    }

    fn packed(messages: &[Message]) -> Vec<u8> {
        let mut packer = Packer::default();
        for (i, message) in messages.iter().enumerate() {
            assert!(packer.push(GroupId(i as u64), message));
        }
        let bytes = packer.pieces().concat();
        assert_eq!(bytes.len(), packer.bytes());
        bytes
    }

    #[test]
    fn whatever_the_cuts_the_same_frames_come_out() {
        let messages = [heartbeat(1), append(10), append(5000), heartbeat(2), append(0)];
        let mut bytes = hello(Kind::Messages(Class::Append)).to_vec();
        bytes.extend(packed(&messages));
        for step in [1, 2, 3, 7, 100, 4096, bytes.len()] {
            let mut parser = Parser::new(wire::MAX_FRAME);
            let mut kind = None;
            let mut found = Vec::new();
            for chunk in bytes.chunks(step) {
                parser.push(chunk);
                if kind.is_none() {
                    kind = parser.hello().unwrap();
                }
                while kind.is_some()
                    && let Some((group, body)) = parser.next().unwrap()
                {
                    found.push((group, wire::decode(body).unwrap()));
                }
            }
            parser.end().unwrap();
            assert_eq!(kind, Some(Kind::Messages(Class::Append)));
            let expected: Vec<_> = (0..).map(GroupId).zip(messages.clone()).collect();
            assert_eq!(found, expected, "in steps of {step}");
        }
    }

    #[test]
    fn a_big_block_is_passed_on_and_not_copied() {
        let message = append(100_000);
        let Body::Append { entries, .. } = &message.body else { unreachable!() };
        let block = entries.first().unwrap().block().clone();
        let mut packer = Packer::default();
        packer.push(GroupId(1), &heartbeat(1));
        packer.push(GroupId(1), &message);
        packer.push(GroupId(1), &heartbeat(2));
        let pieces = packer.pieces();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), block.as_ptr());
        packer.clear();
        assert_eq!((packer.bytes(), packer.pieces().len()), (0, 0));
    }

    #[test]
    fn a_message_that_no_peer_would_take_is_left_out() {
        let mut packer = Packer::default();
        assert!(!packer.push(GroupId(1), &append(wire::MAX_FRAME)));
        assert!(packer.pieces().is_empty());
    }

    #[test]
    fn a_length_is_refused_before_anything_is_allocated_for_it() {
        for len in [0, 7, (wire::MAX_FRAME + 9) as u32, 1 << 31, u32::MAX] {
            let mut parser = Parser::new(wire::MAX_FRAME);
            parser.push(&len.to_le_bytes());
            assert!(matches!(parser.next(), Err(Violation::Length { .. })), "{len}");
        }
        let mut parser = Parser::new(wire::MAX_FRAME);
        parser.push(&(wire::MAX_FRAME as u32).to_le_bytes());
        assert_eq!(parser.next(), Ok(None));
        assert!(parser.buffer.capacity() < 1024);
    }

    #[test]
    fn a_hello_is_refused_at_its_first_wrong_byte() {
        let parse = |bytes: &[u8]| {
            let mut parser = Parser::new(100);
            parser.push(bytes);
            parser.hello()
        };
        assert_eq!(parse(b"qr"), Ok(None));
        assert_eq!(parse(b"qrte\x01"), Ok(None));
        assert_eq!(parse(b"qrte\x01\x02"), Ok(Some(Kind::Forward)));
        assert_eq!(parse(b"GET "), Err(Violation::Magic { found: *b"GET " }));
        assert_eq!(parse(b"qx"), Err(Violation::Magic { found: *b"qx\0\0" }));
        assert_eq!(parse(b"qrte\x09"), Err(Violation::Version { found: 9 }));
        assert_eq!(parse(b"qrte\x01\x09"), Err(Violation::Kind { found: 9 }));
    }

    #[test]
    fn an_end_inside_a_frame_is_told() {
        let bytes = packed(&[heartbeat(1)]);
        for cut in 1..bytes.len() {
            let mut parser = Parser::new(100);
            parser.push(&bytes[..cut]);
            assert_eq!(parser.next(), Ok(None));
            let Err(Violation::Truncated { missing }) = parser.end() else { panic!("cut at {cut}") };
            assert!(missing > 0);
        }
    }

    #[test]
    fn a_buffer_that_a_big_frame_has_grown_is_given_back() {
        let mut parser = Parser::new(wire::MAX_FRAME);
        parser.push(&packed(&[append(8 << 20)]));
        assert!(parser.next().unwrap().is_some());
        parser.push(&[]);
        assert!(parser.buffer.capacity() <= KEEP);
    }
}
