//! Transactions, and the single operations that they consist of.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{
    error::KvError,
    range::Keys,
    read::{self, header},
    store::{Found, Store},
};
use crate::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp, ResponseOp,
    TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};
use crate::pb::mvccpb::KeyValue;

/// Which way each transaction goes, found out before anything is done: those nested in it compare with what there was
/// before it.
pub(super) struct Path {
    succeeded: bool,
    /// Of the transactions in the list that is to be done, in order.
    nested: Vec<Path>,
}

impl Path {
    /// Compares, and looks whether all that is to be done can be. Then it is done as a whole.
    pub(super) fn find(store: &Store, txn: &TxnRequest) -> Result<Self, KvError> {
        let path = Self::compare(store, txn);
        // If there is something to say of both, etcd 3.5 speaks of the put.
        path.check(txn, &|op| match op {
            Request::RequestPut(put) => check_put(store, put, true),
            _ => Ok(()),
        })?;
        path.check(txn, &|op| match op {
            Request::RequestRange(range) => read::check(store, range, true),
            _ => Ok(()),
        })?;
        Ok(path)
    }

    fn compare(store: &Store, txn: &TxnRequest) -> Self {
        let succeeded = txn.compare.iter().all(|compare| holds(store, compare));
        let nested = chosen(txn, succeeded).iter().filter_map(|op| match &op.request {
            Some(Request::RequestTxn(txn)) => Some(Self::compare(store, txn)),
            _ => None,
        });
        Self { succeeded, nested: nested.collect() }
    }

    /// Looks at each operation that is to be done.
    fn check(
        &self,
        txn: &TxnRequest,
        look: &impl Fn(&Request) -> Result<(), KvError>,
    ) -> Result<(), KvError> {
        let mut nested = self.nested.iter();
        for op in chosen(txn, self.succeeded).iter().filter_map(|op| op.request.as_ref()) {
            look(op)?;
            if let Request::RequestTxn(txn) = op
                && let Some(path) = nested.next()
            {
                path.check(txn, look)?;
            }
        }
        Ok(())
    }
}

fn chosen(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// Can it be done? Only [`Change::put`] of one that was found so makes sense.
///
/// If neither key nor lease exist, etcd speaks of the lease, but within a transaction of the key.
pub(super) fn check_put(store: &Store, put: &PutRequest, in_txn: bool) -> Result<(), KvError> {
    let key_missing = (put.ignore_value || put.ignore_lease) && store.get(&put.key).is_none();
    // There are no leases yet, so none is ever found.
    let lease_missing = put.lease != 0;
    match (key_missing, lease_missing) {
        (true, true) if in_txn => Err(KvError::KeyNotFound),
        (_, true) => Err(KvError::LeaseNotFound),
        (true, false) => Err(KvError::KeyNotFound),
        (false, false) => Ok(()),
    }
}

/// A change of the store under way, which becomes one revision.
pub(super) struct Change<'a> {
    store: &'a mut Store,
    /// The revision that it makes, if it changes anything.
    next: i64,
    changed: bool,
}

impl<'a> Change<'a> {
    pub(super) fn new(store: &'a mut Store) -> Self {
        let next = store.revision().saturating_add(1);
        Self { store, next, changed: false }
    }

    /// The end of it; says what revision there is now.
    pub(super) fn commit(self) -> i64 {
        let revision = self.newest();
        self.store.commit(revision);
        revision
    }

    pub(super) fn put(&mut self, put: &PutRequest) -> PutResponse {
        let was = self.store.get(&put.key).map(Found::to_key_value);
        let kept = was.as_ref();
        let value = if put.ignore_value {
            kept.map_or_else(Bytes::new, |was| was.value.clone())
        } else {
            put.value.clone()
        };
        let lease = if put.ignore_lease { kept.map_or(0, |was| was.lease) } else { put.lease };
        self.store.put(&put.key, &value, lease, self.next);
        self.changed = true;
        PutResponse { header: Some(header(self.next)), prev_kv: was.filter(|_| put.prev_kv) }
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let keys = Keys::of(&delete.key, &delete.range_end);
        let prev_kvs = if delete.prev_kv {
            self.store.at(&keys, i64::MAX).map(Found::to_key_value).collect()
        } else {
            Vec::new()
        };
        let deleted = self.store.delete(&keys, self.next);
        self.changed |= deleted > 0;
        DeleteRangeResponse { header: Some(header(self.newest())), deleted, prev_kvs }
    }

    pub(super) fn txn(&mut self, txn: &TxnRequest, path: &Path) -> TxnResponse {
        let mut nested = path.nested.iter();
        let mut responses = Vec::new();
        for op in chosen(txn, path.succeeded) {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    Some(Response::ResponseRange(read::range(self.store, range, self.newest())))
                }
                Some(Request::RequestPut(put)) => Some(Response::ResponsePut(self.put(put))),
                Some(Request::RequestDeleteRange(delete)) => {
                    Some(Response::ResponseDeleteRange(self.delete_range(delete)))
                }
                Some(Request::RequestTxn(txn)) => {
                    nested.next().map(|path| Response::ResponseTxn(self.txn(txn, path)))
                }
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        // As etcd's: only the outermost one is given its revision, by whoever commits it.
        TxnResponse { header: Some(header(0)), succeeded: path.succeeded, responses }
    }

    /// What counts as the newest revision within it.
    const fn newest(&self) -> i64 {
        if self.changed { self.next } else { self.store.revision() }
    }
}

/// Answers a transaction that only reads.
pub(super) fn read_only(store: &Store, txn: &TxnRequest, path: &Path) -> TxnResponse {
    let mut nested = path.nested.iter();
    let responses = chosen(txn, path.succeeded).iter().map(|op| {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => {
                Some(Response::ResponseRange(read::range(store, range, store.revision())))
            }
            Some(Request::RequestTxn(txn)) => {
                nested.next().map(|path| Response::ResponseTxn(read_only(store, txn, path)))
            }
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => None,
        };
        ResponseOp { response }
    });
    TxnResponse { header: Some(header(0)), succeeded: path.succeeded, responses: responses.collect() }
}

/// Does the condition hold, for every key that it is about?
fn holds(store: &Store, compare: &Compare) -> bool {
    let keys = Keys::of(&compare.key, &compare.range_end);
    let mut found = store.at(&keys, store.revision()).peekable();
    if found.peek().is_some() {
        return found.all(|found| holds_for(&found.to_key_value(), compare));
    }
    // A key that isn't has zeros; but no value, not even an empty one.
    compare.target() != CompareTarget::Value && holds_for(&KeyValue::default(), compare)
}

fn holds_for(found: &KeyValue, compare: &Compare) -> bool {
    let with = compare.target_union.as_ref();
    // A condition whose value is of another kind than its target compares with zero, or with an empty value.
    let number = match (compare.target(), with) {
        (CompareTarget::Version, Some(TargetUnion::Version(number)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(number)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(number)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    };
    let value = match with {
        Some(TargetUnion::Value(value)) => &value[..],
        _ => &[],
    };
    let ordering = match compare.target() {
        CompareTarget::Version => found.version.cmp(&number),
        CompareTarget::Create => found.create_revision.cmp(&number),
        CompareTarget::Mod => found.mod_revision.cmp(&number),
        CompareTarget::Lease => found.lease.cmp(&number),
        CompareTarget::Value => found.value[..].cmp(value),
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}
