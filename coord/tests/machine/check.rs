//! What is refused before it is replicated, and in which words.

use quorate_coord::{
    machine::{
        KvError, MAX_REQUEST_BYTES, MAX_TXN_DEPTH, MAX_TXN_OPS, check_delete_range, check_put, check_range,
        check_txn, is_read_only, is_serializable,
    },
    pb::etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareTarget, TargetUnion},
    },
};

use crate::support::{bytes, delete, get, op, put, txn};

#[test]
fn the_words_are_etcds() {
    for (error, words) in [
        (KvError::EmptyKey, "etcdserver: key is not provided"),
        (KvError::KeyNotFound, "etcdserver: key not found"),
        (KvError::ValueProvided, "etcdserver: value is provided"),
        (KvError::LeaseProvided, "etcdserver: lease is provided"),
        (KvError::LeaseNotFound, "etcdserver: requested lease not found"),
        (KvError::InvalidSort, "etcdserver: invalid sort option"),
        (KvError::TooManyOps, "etcdserver: too many operations in txn request"),
        (KvError::DuplicateKey, "etcdserver: duplicate key given in txn request"),
        (KvError::TooLarge, "etcdserver: request is too large"),
        (KvError::Compacted, "etcdserver: mvcc: required revision has been compacted"),
        (KvError::FutureRevision, "etcdserver: mvcc: required revision is a future revision"),
    ] {
        assert_eq!(error.to_string(), words);
    }
}

#[test]
fn a_key_is_never_empty() {
    assert_eq!(check_range(&RangeRequest::default()), Err(KvError::EmptyKey));
    assert_eq!(check_put(&PutRequest::default()), Err(KvError::EmptyKey));
    assert_eq!(check_delete_range(&DeleteRangeRequest::default()), Err(KvError::EmptyKey));
    let compare = TxnRequest { compare: vec![Compare::default()], ..TxnRequest::default() };
    assert_eq!(check_txn(&compare), Err(KvError::EmptyKey));
    for empty in [op(RangeRequest::default()), op(PutRequest::default()), op(DeleteRangeRequest::default())] {
        assert_eq!(check_txn(&txn([op(txn([empty]))])), Err(KvError::EmptyKey));
    }
    assert_eq!(check_range(&get("a")), Ok(()));
    assert_eq!(check_put(&put("a", "")), Ok(()));
    assert_eq!(check_delete_range(&delete("a", "")), Ok(()));
    assert_eq!(check_txn(&TxnRequest::default()), Ok(()));
}

#[test]
fn an_order_must_be_one() {
    assert_eq!(check_range(&RangeRequest { sort_order: 3, ..get("a") }), Err(KvError::InvalidSort));
    assert_eq!(check_range(&RangeRequest { sort_target: 5, ..get("a") }), Err(KvError::InvalidSort));
    assert_eq!(check_range(&RangeRequest { sort_target: -1, ..get("a") }), Err(KvError::InvalidSort));
    assert_eq!(check_range(&RangeRequest { sort_order: 2, sort_target: 4, ..get("a") }), Ok(()));
}

#[test]
fn a_put_must_not_contradict_itself() {
    let value = PutRequest { ignore_value: true, ..put("a", "1") };
    assert_eq!(check_put(&value), Err(KvError::ValueProvided));
    let lease = PutRequest { ignore_lease: true, lease: 1, ..put("a", "1") };
    assert_eq!(check_put(&lease), Err(KvError::LeaseProvided));
    assert_eq!(check_txn(&txn([op(value)])), Err(KvError::ValueProvided));
    let fine = PutRequest { ignore_value: true, ignore_lease: true, ..put("a", "") };
    assert_eq!(check_put(&fine), Ok(()));
}

#[test]
fn an_operation_must_be_one() {
    assert_eq!(check_txn(&txn([RequestOp { request: None }])), Err(KvError::KeyNotFound));
}

#[test]
fn requests_are_bounded_in_size() {
    let sized = |bytes: usize| put("a", &"v".repeat(bytes));
    let overhead = 3 + 4; // The key, and the value's tag and length.
    assert_eq!(check_put(&sized(MAX_REQUEST_BYTES - overhead)), Ok(()));
    assert_eq!(check_put(&sized(MAX_REQUEST_BYTES - overhead + 1)), Err(KvError::TooLarge));
    assert_eq!(check_txn(&txn([op(sized(MAX_REQUEST_BYTES))])), Err(KvError::TooLarge));
    let long = "k".repeat(MAX_REQUEST_BYTES);
    assert_eq!(check_delete_range(&delete(&long, "")), Err(KvError::TooLarge));
}

#[test]
fn operations_are_bounded_with_those_nested() {
    let puts = |count: usize| (0..count).map(|i| op(put(&format!("{i}"), "")));
    assert_eq!(check_txn(&txn(puts(MAX_TXN_OPS))), Ok(()));
    assert_eq!(check_txn(&txn(puts(MAX_TXN_OPS + 1))), Err(KvError::TooManyOps));
    let failure = TxnRequest { failure: puts(MAX_TXN_OPS + 1).collect(), ..TxnRequest::default() };
    assert_eq!(check_txn(&failure), Err(KvError::TooManyOps));
    let compare = Compare { key: bytes("a"), ..Compare::default() };
    let compares = TxnRequest { compare: vec![compare; MAX_TXN_OPS + 1], ..TxnRequest::default() };
    assert_eq!(check_txn(&compares), Err(KvError::TooManyOps));
    assert_eq!(check_txn(&txn([op(txn(puts(MAX_TXN_OPS - 1)))])), Ok(()));
    assert_eq!(check_txn(&txn([op(txn(puts(MAX_TXN_OPS)))])), Err(KvError::TooManyOps));
    // Those side by side count together, or nesting would multiply them.
    let half = || op(txn((0..MAX_TXN_OPS / 2).map(|_| op(get("a")))));
    assert_eq!(check_txn(&txn([half()])), Ok(()));
    assert_eq!(check_txn(&txn([half(), half()])), Err(KvError::TooManyOps));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| (1..depth).fold(txn([op(get("a"))]), |inner, _| txn([op(inner)]));
    assert_eq!(check_txn(&nested(MAX_TXN_DEPTH)), Ok(()));
    assert_eq!(check_txn(&nested(MAX_TXN_DEPTH + 1)), Err(KvError::TooManyOps));
}

#[test]
fn no_key_is_written_twice() {
    let dup = Err(KvError::DuplicateKey);
    let check = |ops: Vec<RequestOp>| check_txn(&txn(ops));
    let either = |then: Vec<RequestOp>, otherwise: Vec<RequestOp>| {
        op(TxnRequest { success: then, failure: otherwise, ..TxnRequest::default() })
    };
    let (a, b) = (op(put("a", "")), op(put("b", "")));
    let del = |key, end| op(delete(key, end));

    assert_eq!(check(vec![a.clone(), b.clone()]), Ok(()));
    assert_eq!(check(vec![a.clone(), a.clone()]), dup);
    assert_eq!(check(vec![a.clone(), del("a", "")]), dup);
    assert_eq!(check(vec![del("a", ""), a.clone()]), dup);
    assert_eq!(check(vec![a.clone(), del("b", "")]), Ok(()));
    assert_eq!(check(vec![b.clone(), del("a", "c")]), dup);
    assert_eq!(check(vec![b.clone(), del("a", "b")]), Ok(()), "the end is left out");
    assert_eq!(check(vec![b.clone(), del("b", "c")]), dup);
    assert_eq!(check(vec![b.clone(), del("0", "1"), del("1", "9"), del("9", "b0"), del("x", "z")]), dup);
    assert_eq!(check(vec![b.clone(), del("z", "a")]), Ok(()), "nothing is deleted");
    assert_eq!(check(vec![del("a", "c"), del("a", ""), del("b", "d")]), Ok(()), "deletions may overlap");
    assert_eq!(check(vec![a.clone(), op(get("a"))]), Ok(()));
    assert_eq!(check(vec![a.clone(), del("a", "\0")]), Ok(()), "as in etcd");

    // Only one of the two lists is done.
    let lists = TxnRequest { success: vec![a.clone()], failure: vec![a.clone()], ..TxnRequest::default() };
    assert_eq!(check_txn(&lists), Ok(()));
    assert_eq!(check(vec![either(vec![a.clone()], vec![a.clone()])]), Ok(()));
    assert_eq!(check(vec![either(vec![a.clone()], vec![]), a.clone()]), dup);
    assert_eq!(check(vec![either(vec![], vec![a.clone()]), a.clone()]), dup);
    assert_eq!(check(vec![either(vec![a.clone()], vec![]), either(vec![], vec![a.clone()])]), dup);
    assert_eq!(check(vec![either(vec![a.clone()], vec![]), del("a", "")]), dup);
    assert_eq!(check(vec![either(vec![del("a", "")], vec![]), a.clone()]), dup);
    assert_eq!(check(vec![either(vec![del("a", "b")], vec![]), either(vec![a.clone()], vec![])]), dup);
    assert_eq!(
        check(vec![either(vec![a.clone()], vec![]), either(vec![del("a", "")], vec![])]),
        Ok(()),
        "as in etcd"
    );
    assert_eq!(check(vec![either(vec![a.clone(), a], vec![]), b]), dup);
}

#[test]
fn it_is_known_what_only_reads() {
    let serializable = || op(RangeRequest { serializable: true, ..get("a") });
    let yes = txn([op(get("a")), op(txn([serializable()]))]);
    assert!(is_read_only(&yes) && !is_serializable(&yes));
    assert!(is_serializable(&txn([serializable(), op(txn([serializable()]))])));
    let mut no = TxnRequest { failure: vec![op(put("a", ""))], ..yes };
    assert!(!is_read_only(&no) && !is_serializable(&no));
    no.failure = vec![op(txn([op(delete("a", ""))]))];
    assert!(!is_read_only(&no));
    let compare = Compare {
        key: bytes("a"),
        target: CompareTarget::Version.into(),
        target_union: Some(TargetUnion::Version(1)),
        ..Compare::default()
    };
    let only_compares = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
    assert!(is_read_only(&only_compares) && !is_serializable(&only_compares));
}
