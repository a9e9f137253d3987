//! Reading.

use std::cmp::Ordering;

use super::{error::KvError, range::Keys, store::Found, store::Store};
use crate::pb::etcdserverpb::{
    RangeRequest, RangeResponse, ResponseHeader,
    range_request::{SortOrder, SortTarget},
};

/// Can it be answered?
///
/// Outside of a transaction any negative revision means the newest; within one, one that is below the last compaction
/// is an error even then: so etcd has it.
pub(super) fn check(store: &Store, range: &RangeRequest, in_txn: bool) -> Result<(), KvError> {
    if range.revision == 0 || (range.revision < 0 && !in_txn) {
        return Ok(());
    }
    store.readable(range.revision)
}

/// Answers a read that was checked. `newest`: the revision that is the newest for it; within a transaction that has
/// changed something, the one that it makes.
pub(super) fn range(store: &Store, range: &RangeRequest, newest: i64) -> RangeResponse {
    let keys = Keys::of(&range.key, &range.range_end);
    let at = if range.revision > 0 { range.revision } else { newest };
    let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let order = Order::of(range);
    let mut count = 0_usize;
    let mut found = Vec::new();
    // One more than the limit, to know that there are more; and all, where only sorting tells which come first. As in
    // etcd, that is where an order was asked for by name: with only a target, those that come first by key are sorted.
    let takes_all = range.sort_order() != SortOrder::None || has_bounds(range);
    let enough = if takes_all { usize::MAX } else { limit.saturating_add(1) };
    for item in store.at(&keys, at) {
        count = count.saturating_add(1);
        if !range.count_only && found.len() < enough && is_wanted(range, &item) {
            found.push(item);
        }
    }
    if let Some(order) = order {
        // Equal ones stay in the order of keys, upwards, in both directions.
        found.sort_by(|a, b| order.compare(a, b));
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let kvs = found.into_iter().map(|item| {
        let mut kv = item.to_key_value();
        if range.keys_only {
            kv.value.clear();
        }
        kv
    });
    RangeResponse {
        header: Some(header(newest)),
        kvs: kvs.collect(),
        more,
        count: i64::try_from(count).unwrap_or(i64::MAX),
    }
}

/// A header with what the store knows of it.
pub(super) fn header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..ResponseHeader::default() }
}

fn has_bounds(range: &RangeRequest) -> bool {
    [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision]
        != [0; 4]
}

fn is_wanted(range: &RangeRequest, item: &Found<'_>) -> bool {
    let within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(item.mod_revision(), range.min_mod_revision, range.max_mod_revision)
        && within(item.create_revision(), range.min_create_revision, range.max_create_revision)
}

/// An order other than the store's own.
struct Order {
    target: SortTarget,
    descend: bool,
}

impl Order {
    fn of(range: &RangeRequest) -> Option<Self> {
        let (target, descend) = (range.sort_target(), range.sort_order() == SortOrder::Descend);
        (target != SortTarget::Key || descend).then_some(Self { target, descend })
    }

    fn compare(&self, a: &Found<'_>, b: &Found<'_>) -> Ordering {
        let (a, b) = if self.descend { (b, a) } else { (a, b) };
        match self.target {
            SortTarget::Key => a.key().cmp(b.key()),
            SortTarget::Version => a.version().cmp(&b.version()),
            SortTarget::Create => a.create_revision().cmp(&b.create_revision()),
            SortTarget::Mod => a.mod_revision().cmp(&b.mod_revision()),
            SortTarget::Value => a.value().cmp(b.value()),
        }
    }
}
