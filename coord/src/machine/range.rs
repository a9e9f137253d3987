//! Which keys a request means.

use std::ops::Bound;

use bytes::Bytes;

/// Keys, as `key` and `range_end` of a request say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Keys {
    /// `range_end` is empty: one key.
    One(Bytes),
    /// From the first on, the second left out. May hold nothing.
    Between(Bytes, Bytes),
    /// `range_end` is a single zero byte: from this one on.
    From(Bytes),
}

/// The key to begin with, and where to end.
pub(super) type Bounds<'a> = (&'a [u8], Bound<&'a [u8]>);

impl Keys {
    pub(super) fn of(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Between(key.clone(), range_end.clone()),
        }
    }

    /// Begin and end for a search in order; `None` if there is nothing between them.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(key) => Some((key, Bound::Included(key))),
            Self::From(key) => Some((key, Bound::Unbounded)),
            Self::Between(begin, end) => (begin < end).then_some((begin, Bound::Excluded(end))),
        }
    }
}
