//! What a request to the store can be refused with.

use crate::pb::command::{CommandError, command_error::Code};

/// Why a request was refused. Nothing has changed.
///
/// Written out it is what etcd says to its clients, which look for these very words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KvError {
    /// A key is never empty.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A put keeps value or lease of a key that does not exist; or an operation in a transaction is none.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A put comes with a value and is to keep the one that is there.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A put comes with a lease and is to keep the one that is there.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A put names a lease that does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// No such order, or nothing to sort by.
    #[error("etcdserver: invalid sort option")]
    InvalidSort,
    /// More than [`MAX_TXN_OPS`](super::MAX_TXN_OPS).
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction would write a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// More than [`MAX_REQUEST_BYTES`](super::MAX_REQUEST_BYTES).
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// The revision asked for has been forgotten.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for does not exist yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// What was replicated is no command of a format that this version knows.
    #[error("quorate: {0}")]
    BadCommand(String),
}

impl KvError {
    /// As it travels in an answer. Those that are found before anything is replicated never do.
    pub(super) fn to_wire(&self) -> CommandError {
        let code = match self {
            Self::KeyNotFound => Code::KeyNotFound,
            Self::LeaseNotFound => Code::LeaseNotFound,
            Self::Compacted => Code::Compacted,
            Self::FutureRevision => Code::FutureRevision,
            Self::BadCommand(_) => Code::BadCommand,
            Self::EmptyKey
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::InvalidSort
            | Self::TooManyOps
            | Self::DuplicateKey
            | Self::TooLarge => Code::Unknown,
        };
        let detail = match self {
            Self::BadCommand(detail) => detail.clone(),
            other if code == Code::Unknown => other.to_string(),
            _ => String::new(),
        };
        CommandError { code: code.into(), detail }
    }

    pub(super) fn from_wire(error: CommandError) -> Self {
        match error.code() {
            Code::KeyNotFound => Self::KeyNotFound,
            Code::LeaseNotFound => Self::LeaseNotFound,
            Code::Compacted => Self::Compacted,
            Code::FutureRevision => Self::FutureRevision,
            Code::BadCommand | Code::Unknown => Self::BadCommand(error.detail),
        }
    }
}
