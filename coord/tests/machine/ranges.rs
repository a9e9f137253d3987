//! Reads: one test for each option.

use quorate_coord::{
    machine::KvError,
    pb::etcdserverpb::{
        RangeRequest,
        range_request::{SortOrder, SortTarget},
    },
};

use crate::support::{Asked, all, delete, get, range, revisions};

/// Key: (create, mod, version, value). a: (2, 6, 2, "9"), b: (3, 3, 1, "5"), c: (4, 8, 3, "5"), d: (5, 5, 1, "1").
fn store() -> Asked {
    let mut store = Asked::default();
    for (key, value) in [("a", "0"), ("b", "5"), ("c", "0"), ("d", "1"), ("a", "9"), ("c", "0"), ("c", "5")] {
        store.put(key, value);
    }
    store
}

#[test]
fn one_key() {
    let store = store();
    let found = store.range(&get("a"));
    assert_eq!((found.count, found.more, found.kvs.len()), (1, false, 1));
    assert_eq!(revisions(&found.kvs[0]), (2, 6, 2));
    let nothing = store.range(&get("x"));
    assert_eq!((nothing.count, nothing.kvs.len(), nothing.header.unwrap().revision), (0, 0, 8));
}

#[test]
fn a_range_leaves_its_end_out() {
    let store = store();
    assert_eq!(store.keys(&range("b", "d")), "b c");
    assert_eq!(store.keys(&range("b", "d\0")), "b c d");
    assert_eq!(store.keys(&range("d", "b")), "", "backwards");
    assert_eq!(store.keys(&range("b", "b")), "", "empty");
}

#[test]
fn a_zero_byte_as_end_means_all_from_the_key_on() {
    let store = store();
    assert_eq!(store.keys(&range("b", "\0")), "b c d");
    assert_eq!(store.keys(&all()), "a b c d");
}

#[test]
fn a_prefix_is_a_range() {
    let mut store = Asked::default();
    for key in ["dir", "dir/", "dir/a", "dir/b/c", "dir0", "e"] {
        store.put(key, "");
    }
    assert_eq!(store.keys(&range("dir/", "dir0")), "dir/ dir/a dir/b/c");
}

#[test]
fn a_limit_says_whether_there_is_more() {
    let store = store();
    let limited = |limit| {
        let found = store.range(&RangeRequest { limit, ..all() });
        (found.kvs.len(), found.more, found.count)
    };
    assert_eq!(limited(0), (4, false, 4));
    assert_eq!(limited(1), (1, true, 4));
    assert_eq!(limited(3), (3, true, 4));
    assert_eq!(limited(4), (4, false, 4));
    assert_eq!(limited(5), (4, false, 4));
    assert_eq!(limited(-1), (4, false, 4));
    assert_eq!(limited(i64::MAX), (4, false, 4));
}

#[test]
fn count_only_has_no_keys() {
    let found = store().range(&RangeRequest { count_only: true, limit: 1, ..all() });
    assert_eq!((found.count, found.kvs.len(), found.more), (4, 0, false));
}

#[test]
fn keys_only_has_no_values() {
    let found = store().range(&RangeRequest { keys_only: true, ..all() });
    assert!(found.kvs.iter().all(|kv| kv.value.is_empty() && !kv.key.is_empty() && kv.version > 0));
    // Values still sort.
    let request = RangeRequest { keys_only: true, sort_target: SortTarget::Value.into(), ..range("a", "c") };
    assert_eq!(store().keys(&request), "b a");
}

#[test]
fn sorted_by_each_target_in_each_order() {
    let store = store();
    let sorted = |target: SortTarget, order: SortOrder| {
        store.keys(&RangeRequest { sort_target: target.into(), sort_order: order.into(), ..all() })
    };
    for (target, up, down) in [
        (SortTarget::Key, "a b c d", "d c b a"),
        (SortTarget::Version, "b d a c", "c a b d"),
        (SortTarget::Create, "a b c d", "d c b a"),
        (SortTarget::Mod, "b d a c", "c a d b"),
        (SortTarget::Value, "d b c a", "a b c d"),
    ] {
        assert_eq!(sorted(target, SortOrder::Ascend), up, "{target:?}");
        assert_eq!(sorted(target, SortOrder::None), up, "{target:?}");
        assert_eq!(sorted(target, SortOrder::Descend), down, "{target:?}");
    }
}

#[test]
fn a_limit_takes_the_first_in_the_order_asked_for() {
    let request = RangeRequest {
        sort_target: SortTarget::Mod.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 1,
        ..all()
    };
    let found = store().range(&request);
    assert_eq!((found.kvs[0].key.as_ref(), found.more, found.count), (&b"c"[..], true, 4));
}

#[test]
fn without_an_order_a_limit_takes_the_first_by_key() {
    // As in etcd: one more than the limit is taken by key, then sorted, then cut. Versions are a 2, b 1, c 3, d 1.
    let store = store();
    let request = RangeRequest { sort_target: SortTarget::Version.into(), limit: 2, ..range("a", "\0") };
    assert_eq!(store.keys(&request), "b a");
    assert!(store.range(&request).more);
    let ascend = RangeRequest { sort_order: SortOrder::Ascend.into(), ..request.clone() };
    assert_eq!(store.keys(&ascend), "b d");
    let bounded = RangeRequest { min_mod_revision: 1, ..request };
    assert_eq!(store.keys(&bounded), "b d");
}

#[test]
fn bounds_of_revisions_filter_but_do_not_count() {
    let store = store();
    let kept = |request: RangeRequest| {
        assert_eq!(store.range(&request).count, 4, "count is of the whole range");
        store.keys(&request)
    };
    assert_eq!(kept(RangeRequest { min_mod_revision: 5, ..all() }), "a c d");
    assert_eq!(kept(RangeRequest { max_mod_revision: 5, ..all() }), "b d");
    assert_eq!(kept(RangeRequest { min_create_revision: 4, ..all() }), "c d");
    assert_eq!(kept(RangeRequest { max_create_revision: 3, ..all() }), "a b");
    let both = RangeRequest { min_mod_revision: 5, max_create_revision: 4, ..all() };
    assert_eq!(kept(both.clone()), "a c");
    let limited = store.range(&RangeRequest { limit: 1, ..both });
    assert_eq!((limited.kvs.len(), limited.more), (1, true), "a limit is of those that are kept");
}

#[test]
fn older_revisions_stay_as_they_were() {
    let mut store = store();
    store.delete(delete("b", "d")); // 9
    store.put("b", "new"); // 10
    let at = |revision| store.keys(&RangeRequest { revision, ..all() });
    assert_eq!(at(1), "");
    assert_eq!(at(2), "a");
    assert_eq!(at(5), "a b c d");
    assert_eq!(at(9), "a d");
    assert_eq!(at(10), "a b d");
    assert_eq!(at(0), "a b d");
    assert_eq!(at(-1), "a b d", "as in etcd");
    let then = store.range(&RangeRequest { revision: 2, ..get("a") });
    assert_eq!((then.kvs[0].value.as_ref(), revisions(&then.kvs[0])), (&b"0"[..], (2, 2, 1)));
    assert_eq!(then.header.unwrap().revision, 10, "the header has the newest");
    let count = store.range(&RangeRequest { revision: 5, count_only: true, ..all() }).count;
    assert_eq!(count, 4);
}

#[test]
fn a_revision_that_is_not_there_is_an_error() {
    let mut store = store();
    let at = |store: &Asked, revision| store.0.range(&RangeRequest { revision, ..all() }).map(drop);
    assert_eq!(at(&store, 8), Ok(()));
    assert_eq!(at(&store, 9), Err(KvError::FutureRevision));
    store.compact(4).unwrap();
    assert_eq!(at(&store, 3), Err(KvError::Compacted));
    assert_eq!(at(&store, 4), Ok(()));
}
