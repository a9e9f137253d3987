//! What clients with sessions send and hear.

use bytes::Bytes;

use super::codec::Reader;

/// The layout of requests and answers.
const VERSION: u8 = 1;
/// In front of a command: version, kind, session, sequence, acknowledged.
const HEADER: usize = 2 + 3 * 8;

/// The payload of a log entry for [`Sessions`](super::Sessions).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Opens a session, which is called by the index of this entry. To open twice does no harm: the session that nobody uses
    /// goes first.
    Open,
    /// A command.
    Command {
        /// Whose.
        session: u64,
        /// Which of the session's, from 1. A retry has the same.
        sequence: u64,
        /// The client has the answers up to this one, and will not ask for any of them again: they are forgotten.
        acknowledged: u64,
        /// For the machine.
        command: Bytes,
    },
}

impl Request {
    /// As the payload of a log entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Open => Bytes::from_static(&[VERSION, 0]),
            Self::Command { session, sequence, acknowledged, command } => {
                let mut out = Vec::with_capacity(HEADER + command.len());
                out.extend_from_slice(&[VERSION, 1]);
                for number in [session, sequence, acknowledged] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(command);
                out.into()
            }
        }
    }

    /// From a payload; `None` if it is no request of this version. The command points into it.
    #[must_use]
    pub fn decode(payload: &Bytes) -> Option<Self> {
        let mut reader = Reader(payload);
        match (reader.u8()?, reader.u8()?) {
            (VERSION, 0) => reader.end().map(|()| Self::Open),
            (VERSION, 1) => Some(Self::Command {
                session: reader.u64()?,
                sequence: reader.u64()?,
                acknowledged: reader.u64()?,
                command: payload.slice(HEADER..),
            }),
            _ => None,
        }
    }
}

/// What a [`Request`] is answered with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// The machine's reply, now or when the command came first.
    Done(Bytes),
    /// The session is open, and called so.
    Opened(u64),
    /// The session was never opened or has expired. Whether the command was applied before that isn't known any more, and it
    /// was not applied now.
    UnknownSession,
    /// The client has acknowledged the answer, so that it is gone. Not applied again.
    Forgotten,
    /// Too far ahead of what the client has acknowledged ([`AHEAD`](super::AHEAD)). Not applied.
    TooFarAhead,
    /// No request. Not applied.
    Malformed,
}

impl From<Answer> for Bytes {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done(reply) => {
                let mut out = Vec::with_capacity(2 + reply.len());
                out.extend_from_slice(&[VERSION, 0]);
                out.extend_from_slice(&reply);
                out.into()
            }
            Answer::Opened(session) => {
                let mut out = [VERSION, 1, 0, 0, 0, 0, 0, 0, 0, 0];
                out[2..].copy_from_slice(&session.to_le_bytes());
                Self::copy_from_slice(&out)
            }
            Answer::UnknownSession => Self::from_static(&[VERSION, 2]),
            Answer::Forgotten => Self::from_static(&[VERSION, 3]),
            Answer::TooFarAhead => Self::from_static(&[VERSION, 4]),
            Answer::Malformed => Self::from_static(&[VERSION, 5]),
        }
    }
}

impl TryFrom<Bytes> for Answer {
    type Error = String;

    fn try_from(bytes: Bytes) -> Result<Self, String> {
        match *bytes {
            [VERSION, 0, ..] => Ok(Self::Done(bytes.slice(2..))),
            [VERSION, 1, ref session @ ..] => {
                let session = session.try_into().map_err(|_| "a session's name has eight bytes")?;
                Ok(Self::Opened(u64::from_le_bytes(session)))
            }
            [VERSION, 2] => Ok(Self::UnknownSession),
            [VERSION, 3] => Ok(Self::Forgotten),
            [VERSION, 4] => Ok(Self::TooFarAhead),
            [VERSION, 5] => Ok(Self::Malformed),
            [VERSION, kind, ..] => Err(format!("an answer of kind {kind} is not known")),
            [version, ..] => Err(format!("the answer is of version {version}; this one knows {VERSION}")),
            [] => Err("the answer is empty".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_were() {
        let command = Bytes::from_static(b"command");
        let command = Request::Command { session: 1, sequence: 2, acknowledged: 3, command };
        for request in [Request::Open, command] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for bytes in [&b""[..], b"\x01", b"\x02\x00", b"\x01\x00\x00", b"\x01\x01\x00", b"\x01\x02"] {
            assert_eq!(Request::decode(&Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let answers = [
            Answer::Done(Bytes::from_static(b"reply")),
            Answer::Done(Bytes::new()),
            Answer::Opened(77),
            Answer::UnknownSession,
            Answer::Forgotten,
            Answer::TooFarAhead,
            Answer::Malformed,
        ];
        for answer in answers {
            assert_eq!(Answer::try_from(Bytes::from(answer.clone())), Ok(answer));
        }
        for bytes in [&b""[..], b"\x02\x00", b"\x01", b"\x01\x01\x00", b"\x01\x02\x00", b"\x01\x09"] {
            assert!(Answer::try_from(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
