//! How a proposal travels to the leader and its reply back: a version, a [kind](Kind), and the rest. All numbers are
//! little-endian.
//!
//! | request | answer |
//! | --- | --- |
//! | `1`, `1` (propose), the command | `1`, then one of: |
//! | `1`, `2` (propose in a trace), the [`TraceContext`] in 25 bytes, the command | `0` (done), the reply |
//! | | `1` (not the leader), the leader's id in 8 bytes, 0 if unknown |
//! | | `2` (overloaded), text |
//! | | `3` (too big), bytes and bound in 8 bytes each |
//! | | `4` (refused), text |
//! | | `5` (unknown), text |
//!
//! Kind `3` is a [report](crate::compare) of what a state hashes to.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_core::NodeId;

use crate::{error::Refusal, trace::TraceContext};

/// The version that is written.
pub(crate) const VERSION: u8 = 1;

/// What nodes ask of each other in forwarded requests: all of it is here, so that no two kinds have one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Propose = 1,
    /// The same, with the trace that it belongs to. Written only if there is one.
    ProposeTraced = 2,
    /// What a replica's state hashed to: see [`compare`](crate::compare).
    Report = 3,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Propose, Self::ProposeTraced, Self::Report];

    /// What such a request begins with.
    pub(crate) const fn head(self) -> [u8; 2] {
        [VERSION, self as u8]
    }
}

/// Texts are cut to this: they are for people.
const MAX_TEXT: usize = 1024;

/// Why bytes are no request, or no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ForwardedError {
    #[error("it is empty or cut short")]
    Short,
    #[error("unknown version {0} of forwarded requests; this node knows 1")]
    Version(u8),
    #[error("unknown kind {0}; this node knows {1}")]
    Kind(u8, &'static str),
    #[error("its trace context is all zeros")]
    Trace,
}

/// A command as a request, in the trace that it belongs to.
pub(crate) fn encode_request(command: &[u8], trace: Option<TraceContext>) -> Bytes {
    let mut request = BytesMut::with_capacity(2 + TraceContext::BYTES + command.len());
    match trace {
        None => request.put_slice(&Kind::Propose.head()),
        Some(trace) => {
            request.put_slice(&Kind::ProposeTraced.head());
            request.put_slice(&trace.to_bytes());
        }
    }
    request.put_slice(command);
    request.freeze()
}

/// The command in a request, and the trace that it belongs to.
pub(crate) fn decode_request(mut request: Bytes) -> Result<(Bytes, Option<TraceContext>), ForwardedError> {
    let kind = take_head(&mut request)?;
    match Kind::ALL.into_iter().find(|known| *known as u8 == kind) {
        Some(Kind::Propose) => Ok((request, None)),
        Some(Kind::ProposeTraced) => {
            let trace = request.first_chunk().ok_or(ForwardedError::Short)?;
            let trace = TraceContext::from_bytes(trace).ok_or(ForwardedError::Trace)?;
            Ok((request.split_off(TraceContext::BYTES), Some(trace)))
        }
        // A report does not come here.
        Some(Kind::Report) | None => {
            Err(ForwardedError::Kind(kind, "1 (propose), 2 (propose in a trace) and 3 (report)"))
        }
    }
}

/// A proposal's outcome as an answer.
pub(crate) fn encode_answer(answer: Result<Bytes, Refusal>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    match answer {
        Ok(reply) => {
            bytes.reserve(1 + reply.len());
            bytes.put_u8(0);
            bytes.put_slice(&reply);
        }
        Err(Refusal::NotLeader(leader)) => put_not_leader(&mut bytes, leader),
        // Somebody else will lead soon.
        Err(Refusal::Stopped(_) | Refusal::Transferring(_)) => put_not_leader(&mut bytes, None),
        Err(Refusal::Overloaded(what)) => put_text(&mut bytes, 2, &what),
        Err(Refusal::TooBig { bytes: size, bound }) => {
            bytes.put_u8(3);
            bytes.put_u64_le(size);
            bytes.put_u64_le(bound);
        }
        Err(Refusal::Other(why)) => put_text(&mut bytes, 4, &why),
        Err(Refusal::Unknown(why)) => put_text(&mut bytes, 5, &why),
    }
    bytes.freeze()
}

/// The outcome in an answer.
pub(crate) fn decode_answer(mut answer: Bytes) -> Result<Result<Bytes, Refusal>, ForwardedError> {
    Ok(Err(match take_head(&mut answer)? {
        0 => return Ok(Ok(answer)),
        1 => {
            let leader = take_u64(&mut answer)?;
            Refusal::NotLeader((leader > 0).then_some(NodeId(leader)))
        }
        2 => Refusal::Overloaded(text(&answer)),
        3 => Refusal::TooBig { bytes: take_u64(&mut answer)?, bound: take_u64(&mut answer)? },
        4 => Refusal::Other(text(&answer)),
        5 => Refusal::Unknown(text(&answer)),
        kind => return Err(ForwardedError::Kind(kind, "0 to 5")),
    }))
}

fn take_head(bytes: &mut Bytes) -> Result<u8, ForwardedError> {
    match bytes.as_ref() {
        [VERSION, kind, ..] => {
            let kind = *kind;
            let _head = bytes.split_to(2);
            Ok(kind)
        }
        [VERSION] | [] => Err(ForwardedError::Short),
        [version, ..] => Err(ForwardedError::Version(*version)),
    }
}

fn take_u64(bytes: &mut Bytes) -> Result<u64, ForwardedError> {
    let number = bytes.first_chunk::<8>().copied().ok_or(ForwardedError::Short)?;
    let _taken = bytes.split_to(8);
    Ok(u64::from_le_bytes(number))
}

fn put_not_leader(bytes: &mut BytesMut, leader: Option<NodeId>) {
    bytes.put_u8(1);
    bytes.put_u64_le(leader.map_or(0, |leader| leader.0));
}

fn put_text(bytes: &mut BytesMut, kind: u8, text: &str) {
    bytes.put_u8(kind);
    bytes.put_slice(&text.as_bytes()[..text.len().min(MAX_TEXT)]);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{StopReason, Stopped};

    #[test]
    fn round_trips() {
        for trace in [None, Some(TraceContext::random())] {
            let decoded = decode_request(encode_request(b"abc", trace));
            assert_eq!(decoded, Ok((Bytes::from_static(b"abc"), trace)));
            assert_eq!(decode_request(encode_request(b"", trace)), Ok((Bytes::new(), trace)));
        }
        let without = Bytes::from_static(b"\x01\x01abc");
        assert_eq!(encode_request(b"abc", None), without, "as it was before there were traces");
        for answer in [
            Ok(Bytes::from_static(b"reply")),
            Ok(Bytes::new()),
            Err(Refusal::NotLeader(None)),
            Err(Refusal::NotLeader(Some(NodeId(7)))),
            Err(Refusal::Overloaded("full".into())),
            Err(Refusal::TooBig { bytes: 9, bound: 8 }),
            Err(Refusal::Other("used up".into())),
            Err(Refusal::Unknown("lost".into())),
        ] {
            assert_eq!(decode_answer(encode_answer(answer.clone())), Ok(answer));
        }
        let stopped = Refusal::Stopped(Stopped { why: StopReason::Shutdown });
        for soon in [stopped, Refusal::Transferring(NodeId(3))] {
            assert_eq!(decode_answer(encode_answer(Err(soon))), Ok(Err(Refusal::NotLeader(None))));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know_and_what_is_cut_short() {
        assert_eq!(decode_request(Bytes::new()), Err(ForwardedError::Short));
        assert_eq!(decode_request(Bytes::from_static(&[2, 1])), Err(ForwardedError::Version(2)));
        assert!(matches!(decode_request(Bytes::from_static(&[1, 9])), Err(ForwardedError::Kind(9, _))));
        let traced = encode_request(b"", Some(TraceContext::random()));
        for len in 0..traced.len() {
            assert_eq!(decode_request(traced.slice(..len)), Err(ForwardedError::Short), "{len} bytes");
        }
        let zeros = [&[1, 2][..], &[0; TraceContext::BYTES]].concat();
        assert_eq!(decode_request(zeros.into()), Err(ForwardedError::Trace));
        assert!(matches!(decode_answer(Bytes::from_static(&[1, 6])), Err(ForwardedError::Kind(6, _))));
        let whole = encode_answer(Err(Refusal::TooBig { bytes: 1, bound: 2 }));
        for len in 0..whole.len() {
            assert_eq!(decode_answer(whole.slice(..len)), Err(ForwardedError::Short), "{len} bytes");
        }
    }
}
