//! Requests in few words, and a machine that is asked with them.

use bytes::Bytes;
use quorate_coord::{
    machine::{Command, KvError, Machine, Reply, Response},
    pb::{
        etcdserverpb::{
            CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
            RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op::Request,
        },
        mvccpb::KeyValue,
    },
};

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub(crate) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..RangeRequest::default() }
}

pub(crate) fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}

/// All keys there are.
pub(crate) fn all() -> RangeRequest {
    range("\0", "\0")
}

pub(crate) fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

pub(crate) fn op(request: impl Into<Op>) -> RequestOp {
    RequestOp { request: Some(request.into().0) }
}

pub(crate) struct Op(Request);

macro_rules! ops {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Op {
            fn from(request: $from) -> Self {
                Self(Request::$variant(request))
            }
        })*
    };
}

ops!(RangeRequest => RequestRange, PutRequest => RequestPut, DeleteRangeRequest => RequestDeleteRange,
     TxnRequest => RequestTxn);

/// A transaction without conditions.
pub(crate) fn txn(success: impl IntoIterator<Item = RequestOp>) -> TxnRequest {
    TxnRequest { success: success.into_iter().collect(), ..TxnRequest::default() }
}

pub(crate) fn txn_if(compare: Compare, then: Vec<RequestOp>, otherwise: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare: vec![compare], success: then, failure: otherwise }
}

/// A machine, asked in ways that can't go wrong unless the test does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(pub(crate) Machine);

impl Asked {
    pub(crate) fn apply(&mut self, command: Command) -> Result<Response, KvError> {
        let before = self.0.clone();
        let Reply { revision, result } = self.0.apply_command(command);
        assert_eq!(revision, self.0.revision());
        if result.is_err() {
            assert_eq!(self.0, before, "a refused command changes nothing");
        }
        result
    }

    pub(crate) fn try_put(&mut self, put: PutRequest) -> Result<PutResponse, KvError> {
        match self.apply(Command::Put(put))? {
            Response::Put(response) => Ok(response),
            other => panic!("{other:?} to a put"),
        }
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        self.try_put(put(key, value)).unwrap().header.unwrap().revision
    }

    pub(crate) fn delete(&mut self, request: DeleteRangeRequest) -> DeleteRangeResponse {
        match self.apply(Command::DeleteRange(request)) {
            Ok(Response::DeleteRange(response)) => response,
            other => panic!("{other:?} to a deletion"),
        }
    }

    pub(crate) fn try_txn(&mut self, txn: TxnRequest) -> Result<TxnResponse, KvError> {
        match self.apply(Command::Txn(txn))? {
            Response::Txn(response) => Ok(response),
            other => panic!("{other:?} to a transaction"),
        }
    }

    pub(crate) fn txn(&mut self, txn: TxnRequest) -> TxnResponse {
        self.try_txn(txn).unwrap()
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), KvError> {
        self.apply(Command::Compact(CompactionRequest { revision, physical: false })).map(drop)
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> RangeResponse {
        self.0.range(request).unwrap()
    }

    /// The keys that a read finds, in its order.
    pub(crate) fn keys(&self, request: &RangeRequest) -> String {
        let keys = self.range(request).kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap());
        keys.collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn kv(&self, key: &str) -> Option<KeyValue> {
        self.range(&get(key)).kvs.into_iter().next()
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        self.kv(key).map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }
}

/// (create_revision, mod_revision, version).
pub(crate) fn revisions(kv: &KeyValue) -> (i64, i64, i64) {
    (kv.create_revision, kv.mod_revision, kv.version)
}
