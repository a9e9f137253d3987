//! What is replicated, and the answer: the payload of a log entry and its reply, each with a format version.

use bytes::Bytes;
use prost::Message as _;

use super::error::KvError;
use crate::pb::{
    command::{self, ForcedRecovery, Recorded, command::Op, command_reply::Result as Wire},
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, TxnRequest, TxnResponse,
    },
};

/// The format of commands and replies that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// A change of the store.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Writes a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// Compares, and does one of two lists of operations.
    Txn(TxnRequest),
    /// Forgets history.
    Compact(CompactionRequest),
    /// Takes down that a node went on alone, without a quorum. No client asks for it: `quorate recover --force-single`
    /// puts it into the log.
    Recovered(ForcedRecovery),
}

impl Command {
    /// As the payload of a log entry.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let op = match self {
            Self::Put(put) => Op::Put(put),
            Self::DeleteRange(delete) => Op::DeleteRange(delete),
            Self::Txn(txn) => Op::Txn(txn),
            Self::Compact(compact) => Op::Compact(compact),
            Self::Recovered(recovery) => Op::Recovered(recovery),
        };
        command::Command { version: FORMAT, op: Some(op) }.encode_to_vec().into()
    }

    /// Reads a log entry's payload. Keys and values in the result point into it.
    ///
    /// # Errors
    /// [`KvError::BadCommand`] if it is of another format, or no command.
    pub fn decode(payload: Bytes) -> Result<Self, KvError> {
        let command = command::Command::decode(payload)
            .map_err(|why| KvError::BadCommand(format!("a log entry is no command: {why}")))?;
        if command.version != FORMAT {
            let found = command.version;
            let what = format!("a command of format {found} can't be applied; this version knows {FORMAT}");
            return Err(KvError::BadCommand(what));
        }
        match command.op {
            Some(Op::Put(put)) => Ok(Self::Put(put)),
            Some(Op::DeleteRange(delete)) => Ok(Self::DeleteRange(delete)),
            Some(Op::Txn(txn)) => Ok(Self::Txn(txn)),
            Some(Op::Compact(compact)) => Ok(Self::Compact(compact)),
            Some(Op::Recovered(recovery)) => Ok(Self::Recovered(recovery)),
            None => Err(KvError::BadCommand(format!(
                "a command of format {FORMAT} is of no kind that this version knows"
            ))),
        }
    }
}

/// What a command that was carried out answers. Headers have only the revision; whoever answers the client fills in
/// the rest.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact(CompactionResponse),
    /// To the record of a recovery.
    Recovered,
}

/// The machine's answer to a command.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    /// The store's revision after it.
    pub revision: i64,
    /// What it did, or why it did nothing.
    pub result: Result<Response, KvError>,
}

impl From<Reply> for Bytes {
    fn from(reply: Reply) -> Self {
        let result = match reply.result {
            Ok(Response::Put(put)) => Wire::Put(put),
            Ok(Response::DeleteRange(delete)) => Wire::DeleteRange(delete),
            Ok(Response::Txn(txn)) => Wire::Txn(txn),
            Ok(Response::Compact(compact)) => Wire::Compact(compact),
            Ok(Response::Recovered) => Wire::Recovered(Recorded {}),
            Err(error) => Wire::Error(error.to_wire()),
        };
        let reply = command::CommandReply { version: FORMAT, result: Some(result), revision: reply.revision };
        reply.encode_to_vec().into()
    }
}

/// Bytes that are no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplyError {
    /// Not even a message.
    #[error("the reply can't be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// From a newer version.
    #[error("the reply is of format {0}; this version knows {FORMAT}")]
    Format(u32),
    /// Without a result that is known here.
    #[error("the reply has no result of a kind that this version knows")]
    Empty,
}

impl TryFrom<Bytes> for Reply {
    type Error = ReplyError;

    fn try_from(bytes: Bytes) -> Result<Self, ReplyError> {
        let reply = command::CommandReply::decode(bytes)?;
        if reply.version != FORMAT {
            return Err(ReplyError::Format(reply.version));
        }
        let result = match reply.result.ok_or(ReplyError::Empty)? {
            Wire::Put(put) => Ok(Response::Put(put)),
            Wire::DeleteRange(delete) => Ok(Response::DeleteRange(delete)),
            Wire::Txn(txn) => Ok(Response::Txn(txn)),
            Wire::Compact(compact) => Ok(Response::Compact(compact)),
            Wire::Recovered(Recorded {}) => Ok(Response::Recovered),
            Wire::Error(error) => Err(KvError::from_wire(error)),
        };
        Ok(Self { revision: reply.revision, result })
    }
}
