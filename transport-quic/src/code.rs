//! With which codes connections and streams are closed.

use quinn::{ConnectionError, VarInt};

/// Why a connection or stream is closed, as its peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// It is not wanted any more. What quinn says by itself when a connection or stream is let go of.
    Abandoned,
    /// The node stops.
    Shutdown,
    /// The two nodes have another connection already; that one is used.
    Duplicate,
    /// The certificate is in order, but it is for another cluster, or not for the node that was meant.
    Identity,
    /// A stream with an unknown beginning.
    Hello,
    /// A stream of another version than was agreed upon, or no version in common.
    Version,
    /// A frame of a forbidden length, or one that ends early.
    Frame,
    /// A message that can't be read.
    Message,
    /// Nothing was done about a forwarded request: there are too many. Or a connection is one too many, for now.
    Busy,
    /// The node is not on the list of those that may speak.
    NotAllowed,
    /// The certificate that was shown when the connection was made would not be taken any more.
    Certificate,
    /// A bulk stream was not taken: there are too many.
    TooManyStreams,
}

impl Code {
    const ALL: [Self; 12] = [
        Self::Abandoned,
        Self::Shutdown,
        Self::Duplicate,
        Self::Identity,
        Self::Hello,
        Self::Version,
        Self::Frame,
        Self::Message,
        Self::Busy,
        Self::NotAllowed,
        Self::Certificate,
        Self::TooManyStreams,
    ];

    pub(crate) const fn number(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Abandoned => 0,
            Self::Shutdown => 1,
            Self::Duplicate => 2,
            Self::Identity => 3,
            Self::Hello => 4,
            Self::Version => 5,
            Self::Frame => 6,
            Self::Message => 7,
            Self::Busy => 8,
            Self::NotAllowed => 9,
            Self::Certificate => 10,
            Self::TooManyStreams => 11,
        })
    }

    /// What a peer meant; `None` for a code that this version does not know.
    pub(crate) fn from_number(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

/// Whose doing it is that a handshake fails, or that a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// This side does not take what the other shows or does.
    Us,
    /// The other side does not take what this one shows.
    Peer,
    /// Nobody refuses anybody: it is given up, lost, or not wanted any more.
    Nobody,
}

impl Cause {
    pub(crate) fn of(error: &ConnectionError) -> Self {
        /// Alerts of TLS, as QUIC carries them (RFC 9001, 4.8).
        const ALERTS: std::ops::Range<u64> = 0x100..0x200;
        match error {
            ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::CidsExhausted => Self::Us,
            ConnectionError::ConnectionClosed(close) if ALERTS.contains(&close.error_code.into()) => {
                Self::Peer
            }
            ConnectionError::ApplicationClosed(close) => match Code::from_number(close.error_code) {
                // A certificate that isn't taken any more may have been replaced since; the next attempt shows.
                Some(Code::Abandoned | Code::Shutdown | Code::Duplicate | Code::Certificate) => Self::Nobody,
                Some(
                    Code::Identity
                    | Code::Hello
                    | Code::Version
                    | Code::Frame
                    | Code::Message
                    | Code::Busy
                    | Code::NotAllowed
                    | Code::TooManyStreams,
                )
                | None => Self::Peer,
            },
            ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed => Self::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(VarInt::from_u32(99)), None);
    }
}
