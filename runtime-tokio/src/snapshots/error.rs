//! Why a snapshot was not taken, or did not get to its goal.

use std::{io, time::Duration};

use quorate_core::{LogId, StateError, wire::DecodeError};

use super::{erased::StoreError, frame::Reason};
use crate::transport::ForwardError;

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// The node stops, or has got a newer one from its leader.
    #[error("it was given up")]
    Cancelled,
    /// The store can't take it.
    #[error("the store: {0}")]
    Store(#[source] StoreError),
    /// The state machine can't write it.
    #[error("the state machine can't write its state: {0}")]
    State(#[source] StateError),
    /// It panicked.
    #[error("the state machine panicked while its state was written: {0}")]
    Panicked(String),
}

/// Why a transfer has ended without its snapshot in the other's store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// The stream could not be opened.
    #[error(transparent)]
    Open(#[from] ForwardError),
    /// The stream was lost.
    #[error("the stream was lost: {0}")]
    Broken(#[from] io::Error),
    /// Nothing has moved for too long.
    #[error("nothing has moved for {0:?}")]
    Stalled(Duration),
    /// What came is no frame, or not one that may come now.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The other doesn't take it, or can't.
    #[error("the peer has refused ({reason}): {text}")]
    Refused {
        /// In one word.
        reason: Reason,
        /// In many.
        text: String,
    },
    /// This side doesn't take it, or can't; the other was told.
    #[error("refused ({reason}): {text}")]
    Refusing {
        /// In one word.
        reason: Reason,
        /// In many.
        text: String,
    },
    /// The own store.
    #[error("the store: {0}")]
    Store(#[source] StoreError),
    /// The own store does not have it (any more).
    #[error("there is no snapshot at {0} here (any more)")]
    Gone(LogId),
    /// The peer wants bytes that only the node had that has staged them.
    #[error("the peer no longer has what another node has sent it")]
    Lost,
    /// Another transfer to this node has taken its place.
    #[error("a newer transfer has taken its place")]
    Superseded,
    /// A thread has panicked, or the runtime is being shut down.
    #[error("the work was not finished: {0}")]
    Abandoned(String),
}

impl TransferError {
    /// May the same snapshot, offered again, get through?
    pub(crate) const fn is_passing(&self) -> bool {
        match self {
            Self::Open(_) | Self::Broken(_) | Self::Stalled(_) => true,
            // The bytes were damaged on their way, or something else was not as it should be: it goes on from what was staged.
            Self::Frame(_) => true,
            Self::Refused { reason, .. } => reason.is_passing(),
            Self::Refusing { .. }
            | Self::Store(_)
            | Self::Gone(_)
            | Self::Lost
            | Self::Superseded
            | Self::Abandoned(_) => false,
        }
    }
}

/// What came is not what may come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("this is no stream of a snapshot")]
    Magic,
    #[error("unknown version {found} of snapshot streams; this node knows 1")]
    Version { found: u8 },
    #[error("a frame of {len} bytes is longer than {most}")]
    Long { len: usize, most: usize },
    #[error("a frame is damaged: its checksum is {found:08x} and should be {expected:08x}")]
    Checksum { expected: u32, found: u32 },
    #[error("unknown kind {0} of frame")]
    Kind(u8),
    #[error("a frame of kind {0} is cut short, or too long")]
    Size(u8),
    #[error("what should name a snapshot can't be read: {0}")]
    Message(#[from] DecodeError),
    #[error("what should name a snapshot is another message")]
    NotInstall,
    #[error("{what} came where it may not")]
    Unexpected { what: &'static str },
    #[error("bytes from {found} on came where those from {expected} on were next, of {total} in all")]
    Offset { expected: u64, found: u64, total: u64 },
}
