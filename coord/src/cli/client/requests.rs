//! What a get, a put and a delete take, on the command line and within a transaction, and the requests that they become.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use bytes::Bytes;
use clap::ValueEnum;
use quorate_coord::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest,
    range_request::{SortOrder, SortTarget},
};

/// Write a key.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Put {
    /// The key
    pub(crate) key: OsString,
    /// Its value
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,
    /// Show what was there before
    #[arg(long)]
    pub(crate) prev: bool,
}

/// Read keys.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Get {
    /// The key, or the first of a range
    pub(crate) key: OsString,
    /// The end of the range, itself left out
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub(crate) range_end: Option<OsString>,
    /// Every key that begins so ("" for all)
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Every key from this one on
    #[arg(long, conflicts_with = "prefix")]
    pub(crate) from_key: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    pub(crate) limit: u32,
    /// As things were at this revision
    #[arg(long, value_name = "REVISION", default_value = "0", hide_default_value = true)]
    pub(crate) rev: u32,
    /// Leave the values out
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Only how many there are
    #[arg(long)]
    pub(crate) count_only: bool,
    /// What the asked node has, without asking the others: faster, maybe stale
    #[arg(long)]
    pub(crate) serializable: bool,
    /// Sort by this
    #[arg(long, value_enum, value_name = "BY")]
    pub(crate) sort_by: Option<SortBy>,
    /// Sort in this direction
    #[arg(long, value_enum)]
    pub(crate) order: Option<Order>,
}

/// Delete keys.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Del {
    /// The key, or the first of a range
    pub(crate) key: OsString,
    /// The end of the range, itself left out
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub(crate) range_end: Option<OsString>,
    /// Every key that begins so ("" for all)
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Every key from this one on
    #[arg(long, conflicts_with = "prefix")]
    pub(crate) from_key: bool,
    /// Show what was there before
    #[arg(long)]
    pub(crate) prev: bool,
}

/// What keys are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// The key
    Key,
    /// How often it was written since it was created
    Version,
    /// When it was created
    Create,
    /// When it was last written
    Modify,
    /// The value
    Value,
}

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Smallest first
    Ascend,
    /// Biggest first
    Descend,
}

impl Put {
    /// As a request.
    pub(crate) fn request(self) -> PutRequest {
        PutRequest { key: raw(self.key), value: raw(self.value), prev_kv: self.prev, ..PutRequest::default() }
    }
}

impl Get {
    /// As a request.
    pub(crate) fn request(self) -> RangeRequest {
        let (key, range_end) = range(self.key, self.range_end, self.prefix, self.from_key);
        let sort_target = match self.sort_by.unwrap_or(SortBy::Key) {
            SortBy::Key => SortTarget::Key,
            SortBy::Version => SortTarget::Version,
            SortBy::Create => SortTarget::Create,
            SortBy::Modify => SortTarget::Mod,
            SortBy::Value => SortTarget::Value,
        };
        let sort_order = match (self.order, self.sort_by) {
            (Some(Order::Descend), _) => SortOrder::Descend,
            (Some(Order::Ascend), _) | (None, Some(_)) => SortOrder::Ascend,
            (None, None) => SortOrder::None,
        };
        RangeRequest {
            key,
            range_end,
            limit: self.limit.into(),
            revision: self.rev.into(),
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: self.serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        }
    }
}

impl Del {
    /// As a request.
    pub(crate) fn request(self) -> DeleteRangeRequest {
        let (key, range_end) = range(self.key, self.range_end, self.prefix, self.from_key);
        DeleteRangeRequest { key, range_end, prev_kv: self.prev }
    }
}

/// The bytes of an argument: keys and values need not be UTF-8.
pub(crate) fn raw(argument: OsString) -> Bytes {
    argument.into_vec().into()
}

/// etcd's way to say a range: `range_end` empty for one key, one zero byte for "to the end".
fn range(key: OsString, range_end: Option<OsString>, prefix: bool, from_key: bool) -> (Bytes, Bytes) {
    const FIRST: &[u8] = b"\0";
    let key = raw(key);
    let end = match range_end {
        Some(end) => raw(end),
        None if prefix => after_prefix(&key),
        None if from_key => Bytes::from_static(FIRST),
        None => Bytes::new(),
    };
    // No key is empty: a range from "" begins with the smallest key there can be.
    let key = if key.is_empty() && !end.is_empty() { Bytes::from_static(FIRST) } else { key };
    (key, end)
}

/// The smallest key beyond all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_said_as_etcd_does() {
        let of = |key: &str, end: Option<&str>, prefix, from_key| {
            let (key, end) = range(key.into(), end.map(Into::into), prefix, from_key);
            (key.to_vec(), end.to_vec())
        };
        assert_eq!(of("a", None, false, false), (b"a".to_vec(), vec![]));
        assert_eq!(of("a", Some("c"), false, false), (b"a".to_vec(), b"c".to_vec()));
        assert_eq!(of("ab", None, true, false), (b"ab".to_vec(), b"ac".to_vec()));
        assert_eq!(of("", None, true, false), (vec![0], vec![0]));
        assert_eq!(of("a", None, false, true), (b"a".to_vec(), vec![0]));
        assert_eq!(&after_prefix(b"a\xFF\xFF")[..], b"b");
        assert_eq!(&after_prefix(b"\xFF")[..], b"\0");
    }
}
