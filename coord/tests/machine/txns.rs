//! Transactions.

use quorate_coord::{
    machine::KvError,
    pb::etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, ResponseOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        response_op::Response,
    },
};

use crate::support::{Asked, all, bytes, delete, get, op, put, revisions, txn, txn_if};

fn compare(key: &str, target: CompareTarget, result: CompareResult, with: TargetUnion) -> Compare {
    Compare {
        key: bytes(key),
        target: target.into(),
        result: result.into(),
        target_union: Some(with),
        ..Compare::default()
    }
}

fn holds(store: &mut Asked, compare: Compare) -> bool {
    store.txn(txn_if(compare, vec![], vec![])).succeeded
}

fn header_revision(response: &ResponseOp) -> i64 {
    let header = match response.response.as_ref().unwrap() {
        Response::ResponseRange(response) => &response.header,
        Response::ResponsePut(response) => &response.header,
        Response::ResponseDeleteRange(response) => &response.header,
        Response::ResponseTxn(response) => &response.header,
    };
    header.as_ref().unwrap().revision
}

/// With a: (create 2, mod 4, version 2, value "m").
fn store() -> Asked {
    let mut store = Asked::default();
    store.put("a", "k");
    store.put("b", "x");
    store.put("a", "m");
    store
}

#[test]
fn each_field_compares_in_each_way() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let mut store = store();
    let number = |target, number| match target {
        CompareTarget::Version => TargetUnion::Version(number),
        CompareTarget::Create => TargetUnion::CreateRevision(number),
        CompareTarget::Mod => TargetUnion::ModRevision(number),
        CompareTarget::Lease => TargetUnion::Lease(number),
        CompareTarget::Value => panic!("not a number"),
    };
    for (target, is) in [
        (CompareTarget::Version, 2),
        (CompareTarget::Create, 2),
        (CompareTarget::Mod, 4),
        (CompareTarget::Lease, 0),
    ] {
        for (result, below, same, above) in [
            (Equal, false, true, false),
            (NotEqual, true, false, true),
            (Greater, true, false, false),
            (Less, false, false, true),
        ] {
            for (with, expected) in [(is - 1, below), (is, same), (is + 1, above)] {
                let held = holds(&mut store, compare("a", target, result, number(target, with)));
                assert_eq!(held, expected, "{target:?} {is} {result:?} {with}");
            }
        }
    }
    for (result, below, same, above) in [
        (Equal, false, true, false),
        (NotEqual, true, false, true),
        (Greater, true, false, false),
        (Less, false, false, true),
    ] {
        for (with, expected) in [("k", below), ("m", same), ("m0", above)] {
            let with = TargetUnion::Value(bytes(with));
            let held = holds(&mut store, compare("a", CompareTarget::Value, result, with.clone()));
            assert_eq!(held, expected, "m {result:?} {with:?}");
        }
    }
}

#[test]
fn a_key_that_is_not_has_zeros_but_no_value() {
    let mut store = store();
    let equal = CompareResult::Equal;
    assert!(holds(&mut store, compare("x", CompareTarget::Version, equal, TargetUnion::Version(0))));
    assert!(holds(&mut store, compare("x", CompareTarget::Create, equal, TargetUnion::CreateRevision(0))));
    assert!(holds(&mut store, compare("x", CompareTarget::Mod, equal, TargetUnion::ModRevision(0))));
    for result in [equal, CompareResult::NotEqual, CompareResult::Greater, CompareResult::Less] {
        let no_value = compare("x", CompareTarget::Value, result, TargetUnion::Value(bytes("")));
        assert!(!holds(&mut store, no_value), "{result:?}");
    }
}

#[test]
fn a_condition_without_a_matching_value_compares_with_zero() {
    let mut store = store();
    let odd = compare("a", CompareTarget::Version, CompareResult::Greater, TargetUnion::ModRevision(9));
    assert!(holds(&mut store, odd));
    let none = Compare { target_union: None, ..compare_empty("a") };
    assert!(!holds(&mut store, none.clone()));
    store.put("a", "");
    assert!(holds(&mut store, none));
}

fn compare_empty(key: &str) -> Compare {
    compare(key, CompareTarget::Value, CompareResult::Equal, TargetUnion::Value(bytes("")))
}

#[test]
fn a_condition_on_a_range_must_hold_for_every_key() {
    let mut store = store(); // a at 4, b at 3
    let on = |range_end: &str, above| Compare {
        range_end: bytes(range_end),
        ..compare("a", CompareTarget::Mod, CompareResult::Greater, TargetUnion::ModRevision(above))
    };
    assert!(holds(&mut store, on("c", 2)));
    assert!(!holds(&mut store, on("c", 3)), "b is not above 3");
    assert!(holds(&mut store, on("b", 3)), "b isn't in it");
    assert!(!holds(&mut store, on("\0", 3)));
    let nobody = Compare { key: bytes("x"), ..on("z", 0) };
    assert!(!holds(&mut store, nobody), "an empty range counts as one key of zeros");
}

#[test]
fn all_conditions_must_hold() {
    let mut store = store();
    let yes = compare("a", CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(2));
    let no = compare("b", CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(2));
    let request = |compare| TxnRequest {
        compare,
        success: vec![op(put("then", ""))],
        failure: vec![op(put("else", "")), op(get("a"))],
    };
    assert!(store.txn(request(vec![yes.clone(), yes.clone()])).succeeded);
    let failed = store.txn(request(vec![yes, no]));
    assert!(!failed.succeeded);
    assert_eq!(failed.responses.len(), 2, "one for each operation of the list that was done");
    assert_eq!(store.keys(&all()), "a b else then");
    assert!(store.txn(request(vec![])).succeeded, "no condition holds");
}

#[test]
fn it_is_one_revision_whatever_it_changes() {
    let mut store = store(); // at 4
    let response = store.txn(txn([
        op(get("a")),
        op(put("c", "1")),
        op(put("d", "1")),
        op(delete("b", "")),
        op(get("c")),
        op(delete("x", "")),
    ]));
    assert_eq!(response.header.unwrap().revision, 5);
    assert_eq!(store.0.revision(), 5);
    let seen: Vec<_> = response.responses.iter().map(header_revision).collect();
    assert_eq!(seen, [4, 5, 5, 5, 5, 5], "a read before the first change is of the revision before");
    assert_eq!(revisions(&store.kv("c").unwrap()), (5, 5, 1));
    assert_eq!(revisions(&store.kv("d").unwrap()), (5, 5, 1));
    assert_eq!(store.keys(&all()), "a c d");
    let Some(Response::ResponseRange(found)) = &response.responses[4].response else { panic!() };
    assert_eq!(found.kvs[0].value, "1", "it sees what it has written");
}

#[test]
fn one_that_changes_nothing_makes_no_revision() {
    let mut store = store();
    let response = store.txn(txn([op(get("a")), op(delete("x", ""))]));
    assert_eq!(response.header.unwrap().revision, 4);
    assert_eq!(store.0.revision(), 4);
    assert_eq!(store.txn(TxnRequest::default()).header.unwrap().revision, 4);
}

#[test]
fn nested_ones_compare_with_what_was_before() {
    let mut store = store();
    let was_there =
        |key| compare(key, CompareTarget::Version, CompareResult::Greater, TargetUnion::Version(0));
    let nested = txn_if(was_there("n"), vec![op(put("then", ""))], vec![op(put("else", "")), op(get("n"))]);
    let response = store.txn(txn([op(put("n", "1")), op(nested), op(txn([op(get("a"))]))]));
    assert_eq!(store.keys(&all()), "a b else n");
    let Some(Response::ResponseTxn(inner)) = &response.responses[1].response else { panic!() };
    assert!(!inner.succeeded);
    assert_eq!(inner.header.as_ref().unwrap().revision, 0, "as in etcd, only the outermost header is filled");
    let Some(Response::ResponseRange(found)) = &inner.responses[1].response else { panic!() };
    assert_eq!(found.count, 1, "its operations see what was written before them");
    let Some(Response::ResponseTxn(last)) = &response.responses[2].response else { panic!() };
    assert!(last.succeeded);
    assert_eq!(response.header.unwrap().revision, 5);
}

#[test]
fn one_that_can_not_be_done_in_full_is_not_done() {
    let mut store = store();
    let first = op(put("first", ""));
    for (bad, error) in [
        (op(RangeRequest { revision: 5, ..get("a") }), KvError::FutureRevision),
        (op(PutRequest { ignore_value: true, ..put("x", "") }), KvError::KeyNotFound),
        (op(PutRequest { ignore_lease: true, ..put("x", "") }), KvError::KeyNotFound),
        (op(PutRequest { lease: 1, ..put("x", "") }), KvError::LeaseNotFound),
        (op(txn([op(RangeRequest { revision: 9, ..get("a") })])), KvError::FutureRevision),
    ] {
        assert_eq!(store.try_txn(txn([first.clone(), bad])), Err(error));
    }
    store.compact(3).unwrap();
    let old = op(RangeRequest { revision: 2, ..get("a") });
    assert_eq!(store.try_txn(txn([first, old.clone()])), Err(KvError::Compacted));
    let nothing_to_keep = op(txn([op(PutRequest { ignore_value: true, ..put("x", "") })]));
    let both = txn([old.clone(), nothing_to_keep]);
    assert_eq!(store.try_txn(both), Err(KvError::KeyNotFound), "as in etcd 3.5, the put comes first");
    assert_eq!(store.keys(&all()), "a b");
    // What isn't chosen isn't looked at.
    let skipped = TxnRequest { failure: vec![old], ..TxnRequest::default() };
    assert!(store.txn(skipped).succeeded);
}

#[test]
fn a_key_can_be_deleted_and_written_again_within_one() {
    // A deletion to the end of the key space is not looked at for duplicates, as in etcd.
    let mut store = store();
    let wipe = DeleteRangeRequest { prev_kv: true, ..delete("a", "\0") };
    let keep = PutRequest { ignore_value: true, prev_kv: true, ..put("b", "") };
    let response = store.txn(txn([op(wipe), op(put("a", "new")), op(keep)]));
    let Some(Response::ResponseDeleteRange(wiped)) = &response.responses[0].response else { panic!() };
    assert_eq!((wiped.deleted, wiped.prev_kvs.len()), (2, 2));
    let Some(Response::ResponsePut(kept)) = &response.responses[2].response else { panic!() };
    assert_eq!(kept.prev_kv, None);
    assert_eq!(revisions(&store.kv("a").unwrap()), (5, 5, 1));
    assert_eq!(store.value("b").as_deref(), Some(""), "there was no value left to keep");
    let before = store.range(&RangeRequest { revision: 4, ..all() });
    assert_eq!(before.count, 2);
}

#[test]
fn one_that_only_reads_can_be_answered_without_a_change() {
    let mut store = store();
    let condition = compare("a", CompareTarget::Version, CompareResult::Equal, TargetUnion::Version(2));
    let request = txn_if(condition, vec![op(get("a")), op(txn([op(all())]))], vec![]);
    let read = store.0.txn(&request).unwrap();
    assert_eq!(read, store.txn(request.clone()), "it is the same answer");
    assert_eq!(read.header.unwrap().revision, 4);
    let future = txn([op(RangeRequest { revision: 5, ..get("a") })]);
    assert_eq!(store.0.txn(&future), Err(KvError::FutureRevision));
}
