//! Messages as bytes, versioned: a small protobuf header and the blocks of entries as they are.
//!
//! A frame is `version: u8`, `header length: u32 LE`, the header (`quorate.v1.Header` of `proto/quorate.proto`), then
//! the blocks one after the other; the header says how long each is. How frames are told apart on a stream, and which
//! group they are for, is the transport's.
//!
//! A block is encoded once, when its batch is proposed, and is shared by every frame that carries it; a received one is
//! copied once, so that a small payload never pins a receive buffer.

use alloc::{boxed::Box, vec::Vec};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::{
    BlockError, Body, Few, Incarnation, Index, LogId, Malformed, Membership, MembershipError, Message,
    RequestId, Run, Snapshot, Term, membership::MembershipRecord,
};

/// The version that [`encode`] writes.
pub const VERSION: u8 = 1;

/// The versions that [`decode`] reads.
pub const KNOWN_VERSIONS: &[u8] = &[1];

/// The longest frame that [`decode`] reads, and so the most that one may be asked to buffer: 2 GiB would be a way
/// to take a node's memory.
pub const MAX_FRAME: usize = 64 << 20;

const PREFIX: usize = 5;

/// A message as bytes, in pieces to be written one after the other (one vectored write), nothing copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Version, header length and header.
    pub head: Bytes,
    /// The entries.
    pub blocks: Few<Bytes>,
}

impl Frame {
    /// How many bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.iter().fold(self.head.len(), |sum, block| sum.saturating_add(block.len()))
    }

    /// Never: a frame has a head.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it in one piece, copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.put_slice(&self.head);
        for block in &self.blocks {
            bytes.put_slice(block);
        }
        bytes.freeze()
    }
}

/// Why bytes are not a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a version that is not known here.
    #[error("unknown wire version {found}; this node knows {known:?}", known = KNOWN_VERSIONS)]
    Version {
        /// The version found.
        found: u8,
    },
    /// Longer than any message may be.
    #[error("a frame of {len} bytes is longer than {MAX_FRAME}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// It ends early.
    #[error("the frame ends after {len} bytes, but {wanted} were announced")]
    Truncated {
        /// Its length.
        len: usize,
        /// What it should be.
        wanted: usize,
    },
    /// It goes on after its end.
    #[error("{extra} bytes follow the end of the frame")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The header is no protobuf, or says nothing.
    #[error("the frame's header can't be read: {0}")]
    Header(&'static str),
    /// The entries are none.
    #[error("the frame's entries: {0}")]
    Block(#[from] BlockError),
    /// A snapshot's membership is none.
    #[error("the snapshot's membership: {0}")]
    Membership(#[from] MembershipError),
    /// No correct node says this.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

/// A message as bytes.
#[must_use]
pub fn encode(message: &Message) -> Frame {
    let (header, blocks) = header_of(message);
    let len = header.encoded_len();
    let mut head = BytesMut::with_capacity(PREFIX.saturating_add(len));
    head.put_u8(VERSION);
    head.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
    // A BytesMut grows as needed: encoding into it can't fail.
    let _infallible = header.encode(&mut head);
    Frame { head: head.freeze(), blocks }
}

/// Bytes as a message, looked through once: after this nothing about it can be wrong but that it isn't true.
///
/// # Errors
/// If they are not one whole frame of a known version, or say what no correct node says.
pub fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    let len = frame.len();
    let (&found, rest) = frame.split_first().ok_or(DecodeError::Truncated { len, wanted: PREFIX })?;
    if !KNOWN_VERSIONS.contains(&found) {
        return Err(DecodeError::Version { found });
    }
    if len > MAX_FRAME {
        return Err(DecodeError::TooLong { len });
    }
    let (header_len, rest) =
        rest.split_first_chunk::<4>().ok_or(DecodeError::Truncated { len, wanted: PREFIX })?;
    let header_len = u32::from_le_bytes(*header_len) as usize;
    let wanted = PREFIX.saturating_add(header_len);
    let (header, blocks) = rest.split_at_checked(header_len).ok_or(DecodeError::Truncated { len, wanted })?;
    let header = Header::decode(header).map_err(|_| DecodeError::Header("not a protobuf message"))?;
    let message = message_of(header, blocks, len)?;
    message.validate()?;
    Ok(message)
}

fn header_of(message: &Message) -> (Header, Few<Bytes>) {
    let mut blocks = Few::new();
    let body = match &message.body {
        Body::PreVote { id, last } => Kind::PreVote(PreVote { id: id_out(*id), last: log_id_out(*last) }),
        Body::PreVoteReply { id, granted } => {
            Kind::PreVoteReply(PreVoteReply { id: id_out(*id), granted: *granted })
        }
        Body::Vote { last, commit, transfer } => {
            Kind::Vote(Vote { last: log_id_out(*last), commit: log_id_out(*commit), transfer: *transfer })
        }
        Body::VoteReply { granted, commit } => {
            Kind::VoteReply(VoteReply { granted: *granted, commit: log_id_out(*commit) })
        }
        Body::Append { prev, commit, entries } => {
            blocks = entries.iter().map(|run| run.block().clone()).collect();
            let runs = entries
                .iter()
                .map(|run| RunHeader { term: run.term().0, bytes: run.bytes() as u64 })
                .collect();
            Kind::Append(Append { prev: log_id_out(*prev), commit: commit.0, runs })
        }
        Body::Appended { up_to } => Kind::Appended(Appended { up_to: up_to.0 }),
        Body::Conflict { prev, hint } => Kind::Conflict(Conflict { prev: prev.0, hint: log_id_out(*hint) }),
        Body::Heartbeat { commit, round, quiesce } => {
            Kind::Heartbeat(Heartbeat { commit: commit.0, round: *round, quiesce: *quiesce })
        }
        Body::HeartbeatReply { round, asleep } => {
            Kind::HeartbeatReply(HeartbeatReply { round: *round, asleep: *asleep })
        }
        Body::Commit { commit } => Kind::Commit(Commit { commit: commit.0 }),
        Body::ReadIndex { id } => Kind::ReadIndex(ReadIndex { id: id_out(*id) }),
        Body::ReadIndexReply { id, index } => {
            Kind::ReadIndexReply(ReadIndexReply { id: id_out(*id), index: index.map(|index| index.0) })
        }
        Body::TimeoutNow => Kind::TimeoutNow(TimeoutNow {}),
        Body::InstallSnapshot { snapshot } => Kind::InstallSnapshot(InstallSnapshot {
            last: log_id_out(snapshot.last),
            membership: Some(snapshot.membership.record()),
        }),
    };
    (Header { term: message.term.0, kind: Some(body) }, blocks)
}

fn message_of(header: Header, blocks: &[u8], len: usize) -> Result<Message, DecodeError> {
    let mut rest = blocks;
    let body = match header.kind.ok_or(DecodeError::Header("a kind of message that is not known here"))? {
        Kind::PreVote(m) => Body::PreVote { id: id_in(m.id), last: log_id_in(m.last) },
        Kind::PreVoteReply(m) => Body::PreVoteReply { id: id_in(m.id), granted: m.granted },
        Kind::Vote(m) => {
            Body::Vote { last: log_id_in(m.last), commit: log_id_in(m.commit), transfer: m.transfer }
        }
        Kind::VoteReply(m) => Body::VoteReply { granted: m.granted, commit: log_id_in(m.commit) },
        Kind::Append(m) => {
            let prev = log_id_in(m.prev);
            let mut entries = Few::new();
            let mut first = prev.index.next();
            for run in m.runs {
                let bytes = usize::try_from(run.bytes).unwrap_or(usize::MAX);
                let wanted = len.saturating_sub(rest.len()).saturating_add(bytes);
                let (block, after) =
                    rest.split_at_checked(bytes).ok_or(DecodeError::Truncated { len, wanted })?;
                rest = after;
                let run = Run::parse(Term(run.term), first, Bytes::copy_from_slice(block))?;
                first = run.last().next();
                entries.push(run);
            }
            Body::Append { prev, commit: Index(m.commit), entries }
        }
        Kind::Appended(m) => Body::Appended { up_to: Index(m.up_to) },
        Kind::Conflict(m) => Body::Conflict { prev: Index(m.prev), hint: log_id_in(m.hint) },
        Kind::Heartbeat(m) => Body::Heartbeat { commit: Index(m.commit), round: m.round, quiesce: m.quiesce },
        Kind::HeartbeatReply(m) => Body::HeartbeatReply { round: m.round, asleep: m.asleep },
        Kind::Commit(m) => Body::Commit { commit: Index(m.commit) },
        Kind::ReadIndex(m) => Body::ReadIndex { id: id_in(m.id) },
        Kind::ReadIndexReply(m) => Body::ReadIndexReply { id: id_in(m.id), index: m.index.map(Index) },
        Kind::TimeoutNow(TimeoutNow {}) => Body::TimeoutNow,
        Kind::InstallSnapshot(m) => {
            let membership = m.membership.ok_or(DecodeError::Header("a snapshot without its membership"))?;
            let membership = Membership::of_record(membership)?;
            Body::InstallSnapshot { snapshot: Box::new(Snapshot { last: log_id_in(m.last), membership }) }
        }
    };
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { extra: rest.len() });
    }
    Ok(Message { term: Term(header.term), body })
}

fn id_out(id: RequestId) -> Option<RequestIdRecord> {
    Some(RequestIdRecord { incarnation: id.incarnation.0, number: id.number })
}

fn id_in(id: Option<RequestIdRecord>) -> RequestId {
    id.map_or_else(RequestId::default, |id| RequestId {
        incarnation: Incarnation(id.incarnation),
        number: id.number,
    })
}

fn log_id_out(id: LogId) -> Option<LogIdRecord> {
    Some(LogIdRecord { term: id.term.0, index: id.index.0 })
}

fn log_id_in(id: Option<LogIdRecord>) -> LogId {
    id.map_or(LogId::ZERO, |id| LogId::new(Term(id.term), Index(id.index)))
}

// The messages of `proto/quorate.proto`, package `quorate.v1`; `tests/proto.rs` holds the two together.

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(oneof = "Kind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "2")]
    PreVote(PreVote),
    #[prost(message, tag = "3")]
    PreVoteReply(PreVoteReply),
    #[prost(message, tag = "4")]
    Vote(Vote),
    #[prost(message, tag = "5")]
    VoteReply(VoteReply),
    #[prost(message, tag = "6")]
    Append(Append),
    #[prost(message, tag = "7")]
    Appended(Appended),
    #[prost(message, tag = "8")]
    Conflict(Conflict),
    #[prost(message, tag = "9")]
    Heartbeat(Heartbeat),
    #[prost(message, tag = "10")]
    HeartbeatReply(HeartbeatReply),
    #[prost(message, tag = "11")]
    Commit(Commit),
    #[prost(message, tag = "12")]
    ReadIndex(ReadIndex),
    #[prost(message, tag = "13")]
    ReadIndexReply(ReadIndexReply),
    #[prost(message, tag = "14")]
    TimeoutNow(TimeoutNow),
    #[prost(message, tag = "15")]
    InstallSnapshot(InstallSnapshot),
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestIdRecord {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PreVote {
    #[prost(message, optional, tag = "1")]
    id: Option<RequestIdRecord>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PreVoteReply {
    #[prost(message, optional, tag = "1")]
    id: Option<RequestIdRecord>,
    #[prost(bool, tag = "2")]
    granted: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Vote {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    commit: Option<LogIdRecord>,
    #[prost(bool, tag = "3")]
    transfer: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoteReply {
    #[prost(bool, tag = "1")]
    granted: bool,
    #[prost(message, optional, tag = "2")]
    commit: Option<LogIdRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Append {
    #[prost(message, optional, tag = "1")]
    prev: Option<LogIdRecord>,
    #[prost(uint64, tag = "2")]
    commit: u64,
    #[prost(message, repeated, tag = "3")]
    runs: Vec<RunHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunHeader {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Appended {
    #[prost(uint64, tag = "1")]
    up_to: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Conflict {
    #[prost(uint64, tag = "1")]
    prev: u64,
    #[prost(message, optional, tag = "2")]
    hint: Option<LogIdRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Heartbeat {
    #[prost(uint64, tag = "1")]
    commit: u64,
    #[prost(uint64, tag = "2")]
    round: u64,
    #[prost(bool, tag = "3")]
    quiesce: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeartbeatReply {
    #[prost(uint64, tag = "1")]
    round: u64,
    #[prost(bool, tag = "2")]
    asleep: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Commit {
    #[prost(uint64, tag = "1")]
    commit: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadIndex {
    #[prost(message, optional, tag = "1")]
    id: Option<RequestIdRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadIndexReply {
    #[prost(message, optional, tag = "1")]
    id: Option<RequestIdRecord>,
    #[prost(uint64, optional, tag = "2")]
    index: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeoutNow {}

#[derive(Clone, PartialEq, prost::Message)]
struct InstallSnapshot {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    membership: Option<MembershipRecord>,
}
