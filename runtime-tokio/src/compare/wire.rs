//! A report as a forwarded request, beside [`forward`](crate::forward): a version, a kind, and the rest. All numbers are
//! little-endian.
//!
//! | request | answer |
//! | --- | --- |
//! | `1`, `3` (report), incarnation and index of the snapshot in 8 bytes each, a count in 1, so many times index and hash in 8 each | `1`, `0` |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_core::{Incarnation, Index};

use super::{Origin, REPEATED};
use crate::forward::{Kind, VERSION};

/// Before the hashes: incarnation, snapshot, count.
const HEADER: usize = 8 + 8 + 1;

/// What a replica's state hashed to lately.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// Where that state comes from.
    pub(crate) origin: Origin,
    /// By index, the oldest first.
    pub(crate) hashes: Vec<(Index, u64)>,
}

/// Why a request is no report.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("it is cut short, or too long")]
    Length,
    #[error("it is no report of this version (1)")]
    Foreign,
    #[error("it has {0} hashes, and no report has more than {REPEATED}")]
    TooMany(usize),
    #[error("its indexes are not in order")]
    Order,
}

impl Report {
    /// Is this forwarded request a report, whatever is in it?
    pub(crate) fn is_one(request: &[u8]) -> bool {
        request.starts_with(&Kind::Report.head())
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(2 + HEADER + self.hashes.len() * 16);
        out.put_slice(&Kind::Report.head());
        out.put_u64_le(self.origin.incarnation.0);
        out.put_u64_le(self.origin.restored.0);
        let hashes = &self.hashes[self.hashes.len().saturating_sub(REPEATED)..];
        out.put_u8(hashes.len() as u8);
        for (index, hash) in hashes {
            out.put_u64_le(index.0);
            out.put_u64_le(*hash);
        }
        out.freeze()
    }

    pub(crate) fn decode(request: &[u8]) -> Result<Self, ReportError> {
        let mut rest = request.strip_prefix(&Kind::Report.head()).ok_or(ReportError::Foreign)?;
        if rest.len() < HEADER {
            return Err(ReportError::Length);
        }
        let origin =
            Origin { incarnation: Incarnation(rest.get_u64_le()), restored: Index(rest.get_u64_le()) };
        let count = usize::from(rest.get_u8());
        if count > REPEATED {
            return Err(ReportError::TooMany(count));
        }
        if rest.len() != count * 16 {
            return Err(ReportError::Length);
        }
        let hashes: Vec<_> = (0..count).map(|_| (Index(rest.get_u64_le()), rest.get_u64_le())).collect();
        if !hashes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(ReportError::Order);
        }
        Ok(Self { origin, hashes })
    }
}

/// The answer to a report: it was taken. Whoever sent it need not look.
pub(crate) fn accepted() -> Bytes {
    Bytes::from_static(&[VERSION, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{forward::encode_request, trace::TraceContext};

    #[test]
    fn reports_come_back_as_they_were_and_only_whole() {
        let origin = Origin { incarnation: Incarnation(3), restored: Index(70) };
        for hashes in [vec![], vec![(Index(80), 1)], vec![(Index(80), 1), (Index(90), u64::MAX)]] {
            let report = Report { origin, hashes };
            let bytes = report.encode();
            assert!(Report::is_one(&bytes));
            assert_eq!(Report::decode(&bytes), Ok(report));
            for len in 0..bytes.len() {
                assert!(Report::decode(&bytes[..len]).is_err(), "{len} bytes");
            }
            assert_eq!(Report::decode(&[&bytes[..], b"x"].concat()), Err(ReportError::Length));
        }
        let many = Report { origin, hashes: (1..=40).map(|n| (Index(n), n)).collect() };
        let last = Report { origin, hashes: (25..=40).map(|n| (Index(n), n)).collect() };
        assert_eq!(Report::decode(&many.encode()), Ok(last), "the newest");
        let order = Report { origin, hashes: vec![(Index(2), 1), (Index(2), 1)] };
        assert_eq!(Report::decode(&order.encode()), Err(ReportError::Order));
        let mut bytes = order.encode().to_vec();
        bytes[2 + 16] = 17;
        assert_eq!(Report::decode(&bytes), Err(ReportError::TooMany(17)));
        assert_eq!(Report::decode(&[2, 2]), Err(ReportError::Foreign));
        // Nor is a proposal taken for one, whatever is in it: it would be answered as done, and never be.
        for trace in [None, Some(TraceContext::random())] {
            assert!(!Report::is_one(&encode_request(&[Kind::Report as u8; 2], trace)), "{trace:?}");
        }
    }
}
