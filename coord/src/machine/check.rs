//! What is looked at before a request is replicated: all that depends on the request alone.
//!
//! As in etcd, whoever takes a request from a client checks it with [`check_put`] and its like, and the machine looks
//! only at what depends on the state. A command that was replicated without a check is still applied the same way
//! everywhere.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::error::KvError;
use crate::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

/// How many comparisons and operations a transaction may have together with all of those nested in it; a list counts as
/// the longest of its three. etcd's default of `--max-txn-ops`; etcd lets each nested transaction have as many again, which
/// multiplies: one request could then keep every replica busy for minutes, and again at each start.
pub const MAX_TXN_OPS: usize = 128;

/// How deep transactions may be nested. etcd has no bound but [`MAX_TXN_OPS`]; here an answer must stay within what
/// protobuf decoders take, which is a depth of 100 messages.
pub const MAX_TXN_DEPTH: usize = 32;

/// How many bytes a request may have: etcd's default of `--max-request-bytes`, 1.5 MiB.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;

/// Looks at a read.
///
/// # Errors
/// If it has no key, or an order that isn't one.
pub fn check_range(range: &RangeRequest) -> Result<(), KvError> {
    has_key(&range.key)?;
    if SortOrder::try_from(range.sort_order).is_err() || SortTarget::try_from(range.sort_target).is_err() {
        return Err(KvError::InvalidSort);
    }
    Ok(())
}

/// Looks at a put.
///
/// # Errors
/// If it has no key, contradicts itself, or is too large.
pub fn check_put(put: &PutRequest) -> Result<(), KvError> {
    check_put_op(put)?;
    check_size(put)
}

/// Looks at a deletion.
///
/// # Errors
/// If it has no key, or is too large.
pub fn check_delete_range(delete: &DeleteRangeRequest) -> Result<(), KvError> {
    has_key(&delete.key)?;
    check_size(delete)
}

/// Looks at a transaction and all that is nested in it.
///
/// # Errors
/// If an operation is not valid, there are too many, a key would be written twice, or it is too large.
pub fn check_txn(txn: &TxnRequest) -> Result<(), KvError> {
    check_txn_ops(txn, &mut { MAX_TXN_OPS }, MAX_TXN_DEPTH)?;
    // After the count, so that its cost is bounded.
    for list in [&txn.success, &txn.failure] {
        Written::by(list)?;
    }
    check_size(txn)
}

/// Does it change nothing, whichever way its comparisons turn out?
#[must_use]
pub fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

/// Is it content with what one node has? Only if all of its reads say so; one that does nothing but compare never has.
#[must_use]
pub fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure).peekable();
    // Differs from etcd, which reads one without operations from a node that may lag behind, though nobody said it may.
    ops.peek().is_some()
        && ops.all(|op| match &op.request {
            Some(Request::RequestRange(range)) => range.serializable,
            Some(Request::RequestTxn(nested)) => is_serializable(nested),
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
        })
}

fn has_key(key: &[u8]) -> Result<(), KvError> {
    if key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
}

fn check_size(request: &impl Message) -> Result<(), KvError> {
    if request.encoded_len() > MAX_REQUEST_BYTES { Err(KvError::TooLarge) } else { Ok(()) }
}

fn check_put_op(put: &PutRequest) -> Result<(), KvError> {
    has_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(KvError::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(KvError::LeaseProvided);
    }
    Ok(())
}

/// `budget`: how many operations are left for this level, those below it and those beside it.
fn check_txn_ops(txn: &TxnRequest, budget: &mut usize, depth: usize) -> Result<(), KvError> {
    let count = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    *budget = budget.checked_sub(count).ok_or(KvError::TooManyOps)?;
    let below = depth.checked_sub(1).ok_or(KvError::TooManyOps)?;
    for compare in &txn.compare {
        has_key(&compare.key)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put_op(put)?,
            Some(Request::RequestDeleteRange(delete)) => has_key(&delete.key)?,
            Some(Request::RequestTxn(nested)) => check_txn_ops(nested, budget, below)?,
            // These words are what etcd says to it.
            None => return Err(KvError::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations may write: no key of it may be put twice, or both put and deleted.
///
/// etcd's rules, with what they let through: deletions may overlap each other, and the two lists of a nested
/// transaction may write the same key, for only one is done. A deletion in a nested transaction doesn't clash with a
/// put in one before it, and one to the end of the key space (`range_end` a zero byte) with nothing. What then happens
/// is well defined: operations are done in order.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deleted: Intervals<'a>,
}

impl<'a> Written<'a> {
    fn by(ops: &'a [RequestOp]) -> Result<Self, KvError> {
        let mut written = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                written.deleted.add(&delete.key, &delete.range_end);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let (then, otherwise) = (Self::by(&nested.success)?, Self::by(&nested.failure)?);
                let either: BTreeSet<&[u8]> = then.puts.union(&otherwise.puts).copied().collect();
                for key in either {
                    written.put(key)?;
                }
                written.deleted.merge(then.deleted);
                written.deleted.merge(otherwise.deleted);
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                written.put(&put.key)?;
            }
        }
        Ok(written)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), KvError> {
        if self.deleted.contains(key) || !self.puts.insert(key) {
            return Err(KvError::DuplicateKey);
        }
        Ok(())
    }
}

/// Ranges of keys.
#[derive(Default)]
struct Intervals<'a> {
    keys: BTreeSet<&'a [u8]>,
    /// Begin to end; disjoint.
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Intervals<'a> {
    fn add(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.keys.insert(key);
            return;
        }
        let (mut begin, mut end) = (key, range_end);
        if begin >= end {
            return;
        }
        // Take in all that touch it: each that begins before its end, as long as it ends after its begin.
        while let Some((&other, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < begin {
                break;
            }
            self.ranges.remove(other);
            begin = begin.min(other);
            end = end.max(other_end);
        }
        self.ranges.insert(begin, end);
    }

    fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        for (begin, end) in other.ranges {
            self.add(begin, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = self.ranges.range(..=key).next_back();
        self.keys.contains(key) || before.is_some_and(|(_, end)| key < *end)
    }
}
