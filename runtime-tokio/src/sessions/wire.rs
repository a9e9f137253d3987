//! What clients with sessions send and hear: a version, a kind, and the rest. All numbers are little-endian.
//!
//! | command | reply |
//! | --- | --- |
//! | `1`, `0` (register), time | `1`, `0` (applied), the inner reply |
//! | `1`, `1` (expire), session, time | `1`, `1` (registered), session, how many may be outstanding (4 bytes) |
//! | `1`, `2` (apply), session, seq, acknowledged, time, the inner command | `1`, then one of: `2` (expired), `3` (unknown session), `4` (stale), `5` (too far ahead), `6` (full), `7` (configured), `8` (malformed) |
//! | `1`, `3` (configure), sessions (4), outstanding (4), bytes, idle in ms | |

use std::{fmt, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::table::Limits;

/// The version that is written.
const VERSION: u8 = 1;

/// In front of an inner command: version, kind, session, seq, acknowledged, time.
const APPLY_HEADER: usize = 2 + 4 * 8;

/// The name of a session: the index of the entry that registered it, and so never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What [`Sessions`](super::Sessions) applies. [`Client`](super::Client) makes these; whoever needs no session to list the
/// limits or to clean up after a client may, too.
///
/// Each but `Configure` says what time it is, in ms since any epoch that all clients share; 0 says nothing. It is looked at
/// only if [`Limits::idle`] is set.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Opens a session. To register twice does no harm: a session that nobody uses goes first.
    Register {
        /// The time.
        time: u64,
    },
    /// Ends a session.
    Expire {
        /// Which.
        session: SessionId,
        /// The time.
        time: u64,
    },
    /// A command of a session.
    Apply {
        /// Of which.
        session: SessionId,
        /// Which of the session's, from 1. A retry has the same; no other command ever has.
        seq: u64,
        /// The client has done with all commands up to this one: their replies are forgotten. Below the lowest `seq`
        /// that it still waits for.
        acknowledged: u64,
        /// The time.
        time: u64,
        /// For the machine within.
        command: Bytes,
    },
    /// From now on, other limits. Sessions beyond them end.
    Configure(Limits),
}

/// What a [`Command`] is answered with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reply {
    /// The reply of the machine within, now or when the command came first.
    Applied(Bytes),
    /// The session is open.
    Registered {
        /// Its name.
        session: SessionId,
        /// How far a `seq` may be ahead of `acknowledged`.
        outstanding: u32,
    },
    /// The session has ended, as was asked for, or there was none.
    Expired,
    /// There is no such session: it was never registered, or has expired. The command was not applied now and never will be
    /// from now on. Whether it was applied before that, if it had been sent before, nobody knows any more.
    UnknownSession,
    /// The client has acknowledged this command, so that its reply is gone. It was not applied now.
    Stale,
    /// So far ahead of what the client has acknowledged that its reply could not be kept. It has not been applied.
    TooFarAhead,
    /// The replies that the client has not acknowledged have too many bytes. It has not been applied.
    Full,
    /// The limits are in force.
    Configured,
    /// It was no command of this version. Not applied.
    Malformed,
}

/// Why bytes are no [`Command`], or no [`Reply`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// Cut short.
    #[error("it is empty or cut short")]
    Short,
    /// Longer than it should be.
    #[error("{0} bytes are left over")]
    Long(usize),
    /// Of another version.
    #[error("unknown version {0} of session commands; this release knows 1")]
    Version(u8),
    /// Of another kind.
    #[error("unknown kind {found}; this release knows {known}")]
    Kind {
        /// The kind found.
        found: u8,
        /// Those that are known.
        known: &'static str,
    },
    /// Limits that are none.
    #[error("{0}")]
    Limits(#[from] super::table::LimitsError),
}

impl From<Command> for Bytes {
    fn from(command: Command) -> Self {
        let mut out = BytesMut::with_capacity(APPLY_HEADER);
        out.put_u8(VERSION);
        match command {
            Command::Register { time } => {
                out.put_u8(0);
                out.put_u64_le(time);
            }
            Command::Expire { session, time } => {
                out.put_u8(1);
                out.put_u64_le(session.0);
                out.put_u64_le(time);
            }
            Command::Apply { session, seq, acknowledged, time, command } => {
                out.reserve(APPLY_HEADER + command.len());
                out.put_u8(2);
                for number in [session.0, seq, acknowledged, time] {
                    out.put_u64_le(number);
                }
                out.put_slice(&command);
            }
            Command::Configure(limits) => {
                out.put_u8(3);
                limits.put(&mut out);
            }
        }
        out.freeze()
    }
}

impl TryFrom<Bytes> for Command {
    type Error = WireError;

    /// The inner command points into `bytes`.
    fn try_from(mut bytes: Bytes) -> Result<Self, WireError> {
        let command = match take_head(&mut bytes)? {
            0 => Self::Register { time: take_u64(&mut bytes)? },
            1 => Self::Expire { session: SessionId(take_u64(&mut bytes)?), time: take_u64(&mut bytes)? },
            2 => {
                return Ok(Self::Apply {
                    session: SessionId(take_u64(&mut bytes)?),
                    seq: take_u64(&mut bytes)?,
                    acknowledged: take_u64(&mut bytes)?,
                    time: take_u64(&mut bytes)?,
                    command: bytes,
                });
            }
            3 => {
                let limits = Limits {
                    sessions: take_u32(&mut bytes)?,
                    outstanding: take_u32(&mut bytes)?,
                    reply_bytes: take_u64(&mut bytes)?,
                    idle: match take_u64(&mut bytes)? {
                        0 => None,
                        ms => Some(Duration::from_millis(ms)),
                    },
                };
                limits.validate()?;
                Self::Configure(limits)
            }
            found => {
                let known = "0 (register), 1 (expire), 2 (apply), 3 (configure)";
                return Err(WireError::Kind { found, known });
            }
        };
        end(&bytes)?;
        Ok(command)
    }
}

impl From<Reply> for Bytes {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Applied(inner) => {
                let mut out = BytesMut::with_capacity(2 + inner.len());
                out.put_slice(&[VERSION, 0]);
                out.put_slice(&inner);
                out.freeze()
            }
            Reply::Registered { session, outstanding } => {
                let mut out = BytesMut::with_capacity(2 + 8 + 4);
                out.put_slice(&[VERSION, 1]);
                out.put_u64_le(session.0);
                out.put_u32_le(outstanding);
                out.freeze()
            }
            Reply::Expired => Self::from_static(&[VERSION, 2]),
            Reply::UnknownSession => Self::from_static(&[VERSION, 3]),
            Reply::Stale => Self::from_static(&[VERSION, 4]),
            Reply::TooFarAhead => Self::from_static(&[VERSION, 5]),
            Reply::Full => Self::from_static(&[VERSION, 6]),
            Reply::Configured => Self::from_static(&[VERSION, 7]),
            Reply::Malformed => Self::from_static(&[VERSION, 8]),
        }
    }
}

impl TryFrom<Bytes> for Reply {
    type Error = WireError;

    fn try_from(mut bytes: Bytes) -> Result<Self, WireError> {
        let reply = match take_head(&mut bytes)? {
            0 => return Ok(Self::Applied(bytes)),
            1 => Self::Registered {
                session: SessionId(take_u64(&mut bytes)?),
                outstanding: take_u32(&mut bytes)?,
            },
            2 => Self::Expired,
            3 => Self::UnknownSession,
            4 => Self::Stale,
            5 => Self::TooFarAhead,
            6 => Self::Full,
            7 => Self::Configured,
            8 => Self::Malformed,
            found => return Err(WireError::Kind { found, known: "0 to 8" }),
        };
        end(&bytes)?;
        Ok(reply)
    }
}

fn take_head(bytes: &mut Bytes) -> Result<u8, WireError> {
    match bytes.as_ref() {
        [VERSION, kind, ..] => {
            let kind = *kind;
            bytes.advance(2);
            Ok(kind)
        }
        [VERSION] | [] => Err(WireError::Short),
        [version, ..] => Err(WireError::Version(*version)),
    }
}

fn take_u64(bytes: &mut Bytes) -> Result<u64, WireError> {
    bytes.try_get_u64_le().map_err(|_| WireError::Short)
}

fn take_u32(bytes: &mut Bytes) -> Result<u32, WireError> {
    bytes.try_get_u32_le().map_err(|_| WireError::Short)
}

fn end(bytes: &Bytes) -> Result<(), WireError> {
    if bytes.is_empty() { Ok(()) } else { Err(WireError::Long(bytes.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_as_they_were_and_only_whole() {
        let idle = Some(Duration::from_millis(1500));
        let limits = Limits { sessions: 9, outstanding: 8, reply_bytes: 7, idle };
        for command in [
            Command::Register { time: 5 },
            Command::Expire { session: SessionId(3), time: 6 },
            Command::Configure(limits),
            Command::Configure(Limits { idle: None, ..limits }),
        ] {
            let bytes = Bytes::from(command.clone());
            assert_eq!(Command::try_from(bytes.clone()), Ok(command));
            for len in 0..bytes.len() {
                assert_eq!(Command::try_from(bytes.slice(..len)), Err(WireError::Short), "{len} bytes");
            }
            let longer = Bytes::from([&bytes[..], b"x"].concat());
            assert_eq!(Command::try_from(longer), Err(WireError::Long(1)));
        }
        let (session, command) = (SessionId(1), Bytes::from_static(b"inner"));
        let apply = Command::Apply { session, seq: 2, acknowledged: 1, time: 4, command };
        let bytes = Bytes::from(apply.clone());
        assert_eq!(bytes.len(), APPLY_HEADER + 5);
        assert_eq!(Command::try_from(bytes.clone()), Ok(apply));
        assert_eq!(Command::try_from(bytes.slice(..APPLY_HEADER - 1)), Err(WireError::Short));
        assert_eq!(Command::try_from(Bytes::from_static(&[2, 0])), Err(WireError::Version(2)));
        let unknown = Command::try_from(Bytes::from_static(&[1, 4]));
        assert!(matches!(unknown, Err(WireError::Kind { found: 4, .. })), "{unknown:?}");
        let none = Bytes::from(Command::Configure(Limits { sessions: 0, ..limits }));
        assert!(matches!(Command::try_from(none), Err(WireError::Limits(_))));
    }

    #[test]
    fn replies_come_back_as_they_were_and_only_whole() {
        for reply in [
            Reply::Applied(Bytes::from_static(b"reply")),
            Reply::Applied(Bytes::new()),
            Reply::Registered { session: SessionId(77), outstanding: 64 },
            Reply::Expired,
            Reply::UnknownSession,
            Reply::Stale,
            Reply::TooFarAhead,
            Reply::Full,
            Reply::Configured,
            Reply::Malformed,
        ] {
            assert_eq!(Reply::try_from(Bytes::from(reply.clone())), Ok(reply));
        }
        for bytes in [&b""[..], b"\x02\x00", b"\x01", b"\x01\x01\x00", b"\x01\x02\x00", b"\x01\x09"] {
            assert!(Reply::try_from(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
