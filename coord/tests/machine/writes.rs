//! Puts, deletions, compaction.

use quorate_coord::{
    machine::KvError,
    pb::etcdserverpb::{DeleteRangeRequest, PutRequest},
};

use crate::support::{Asked, all, bytes, delete, get, op, put, range, revisions, txn};

#[test]
fn a_store_begins_at_revision_1_and_each_change_makes_one() {
    let mut store = Asked::default();
    assert_eq!(store.range(&all()).header.unwrap().revision, 1);
    assert_eq!(store.put("a", "1"), 2);
    assert_eq!(store.put("b", "1"), 3);
    let nothing = store.delete(delete("x", ""));
    assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 3), "nothing changed");
    let something = store.delete(delete("a", ""));
    assert_eq!((something.deleted, something.header.unwrap().revision), (1, 4));
}

#[test]
fn a_key_counts_its_versions_and_begins_again_after_a_deletion() {
    let mut store = Asked::default();
    store.put("a", "1");
    store.put("b", "x");
    store.put("a", "2");
    assert_eq!(revisions(&store.kv("a").unwrap()), (2, 4, 2));
    assert_eq!(store.value("a").as_deref(), Some("2"));
    store.delete(delete("a", ""));
    assert_eq!(store.kv("a"), None);
    store.put("a", "3");
    assert_eq!(revisions(&store.kv("a").unwrap()), (6, 6, 1));
}

#[test]
fn prev_kv_of_a_put_is_what_was_there() {
    let mut store = Asked::default();
    let with_prev = |value| PutRequest { prev_kv: true, ..put("a", value) };
    assert_eq!(store.try_put(with_prev("1")).unwrap().prev_kv, None);
    let was = store.try_put(with_prev("2")).unwrap().prev_kv.unwrap();
    assert_eq!((was.value.as_ref(), revisions(&was)), (&b"1"[..], (2, 2, 1)));
    assert_eq!(store.try_put(put("a", "3")).unwrap().prev_kv, None, "it wasn't asked for");
}

#[test]
fn ignore_value_keeps_the_value_of_a_key_that_exists() {
    let mut store = Asked::default();
    let touch = PutRequest { ignore_value: true, ..put("a", "") };
    assert_eq!(store.try_put(touch.clone()), Err(KvError::KeyNotFound));
    store.put("a", "1");
    store.try_put(touch.clone()).unwrap();
    assert_eq!(store.value("a").as_deref(), Some("1"));
    assert_eq!(revisions(&store.kv("a").unwrap()), (2, 3, 2));
    store.delete(delete("a", ""));
    assert_eq!(store.try_put(touch), Err(KvError::KeyNotFound));
}

#[test]
fn ignore_lease_wants_a_key_that_exists() {
    let mut store = Asked::default();
    let keep = PutRequest { ignore_lease: true, ..put("a", "2") };
    assert_eq!(store.try_put(keep.clone()), Err(KvError::KeyNotFound));
    store.put("a", "1");
    store.try_put(keep).unwrap();
    assert_eq!(store.value("a").as_deref(), Some("2"));
    assert_eq!(store.kv("a").unwrap().lease, 0);
}

#[test]
fn there_are_no_leases_to_bind_to() {
    let mut store = Asked::default();
    let bound = PutRequest { lease: 7, ..put("a", "1") };
    assert_eq!(store.try_put(bound.clone()), Err(KvError::LeaseNotFound));
    // If there is no key to keep the value of either: as in etcd.
    let neither = PutRequest { ignore_value: true, value: bytes(""), ..bound };
    assert_eq!(store.try_put(neither.clone()), Err(KvError::LeaseNotFound));
    assert_eq!(store.try_txn(txn([op(neither)])), Err(KvError::KeyNotFound));
}

#[test]
fn a_deletion_takes_one_key_a_range_or_all_from_one_on() {
    let mut store = Asked::default();
    for key in ["a", "a/1", "a/2", "b", "c", "d"] {
        store.put(key, key);
    }
    let request = DeleteRangeRequest { prev_kv: true, ..delete("a/", "a0") };
    let response = store.delete(request);
    let prev: Vec<_> = response.prev_kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!((response.deleted, prev), (2, vec![bytes("a/1"), bytes("a/2")]));
    assert_eq!(store.keys(&all()), "a b c d");
    assert_eq!(store.delete(delete("b", "a")).deleted, 0, "the end is before the begin");
    assert_eq!(store.delete(delete("c", "\0")).deleted, 2);
    assert_eq!(store.keys(&all()), "a b");
    assert!(store.delete(delete("a", "")).prev_kvs.is_empty(), "they weren't asked for");
}

#[test]
fn compaction_forgets_what_was_superseded_and_nothing_else() {
    let mut store = Asked::default();
    store.put("a", "1"); // 2
    store.put("a", "2"); // 3
    store.put("b", "1"); // 4
    store.delete(delete("b", "")); // 5
    store.put("a", "3"); // 6
    let bytes_before = store.0.bytes();
    let at = |store: &Asked, revision| {
        let mut request = all();
        request.revision = revision;
        store.0.range(&request).map(|found| found.kvs)
    };
    let (at_5, at_6) = (at(&store, 5).unwrap(), at(&store, 6).unwrap());

    assert_eq!(store.0.compacted(), -1);
    assert_eq!(store.compact(7), Err(KvError::FutureRevision));
    store.compact(5).unwrap();
    assert_eq!((store.0.compacted(), store.0.revision()), (5, 6));
    assert_eq!(at(&store, 4), Err(KvError::Compacted));
    assert_eq!(at(&store, 5).unwrap(), at_5);
    assert_eq!(at(&store, 6).unwrap(), at_6);
    assert_eq!(at(&store, 7), Err(KvError::FutureRevision));
    assert_eq!(store.compact(5), Err(KvError::Compacted));
    assert_eq!(store.compact(0), Err(KvError::Compacted));
    assert!(store.0.bytes() < bytes_before);
    // "a" has two versions left, "b" none.
    let mut only_a = Asked::default();
    only_a.put("a", "2");
    only_a.put("a", "3");
    assert_eq!(store.0.bytes(), only_a.0.bytes());
}

#[test]
fn hash_kv_is_of_a_revision_and_digest_of_everything() {
    let mut store = Asked::default();
    store.put("a", "1");
    let (hash, revision) = store.0.hash_kv(0).unwrap();
    let digest = store.0.digest();
    assert_eq!(revision, 2);
    store.put("a", "2");
    assert_eq!(store.0.hash_kv(2).unwrap(), (hash, 2), "what comes later doesn't count");
    assert_ne!(store.0.hash_kv(0).unwrap().0, hash);
    assert_ne!(store.0.digest(), digest);
    assert_eq!(store.0.hash_kv(4), Err(KvError::FutureRevision));
    store.compact(3).unwrap();
    assert_eq!(store.0.hash_kv(2), Err(KvError::Compacted));

    let mut other = Asked::default();
    other.put("a", "1");
    other.put("a", "3");
    assert_ne!(other.0.digest(), store.0.digest());
    assert_ne!(other.0.hash_kv(0).unwrap(), store.0.hash_kv(0).unwrap());
}

#[test]
fn stored_values_do_not_share_memory_with_the_request() {
    let mut store = Asked::default();
    let request = put("a", "value");
    store.try_put(request.clone()).unwrap();
    let kv = store.kv("a").unwrap();
    assert_ne!(kv.key.as_ptr(), request.key.as_ptr());
    assert_ne!(kv.value.as_ptr(), request.value.as_ptr());
    assert_eq!(store.range(&range("a", "b")), store.range(&get("a")));
}
