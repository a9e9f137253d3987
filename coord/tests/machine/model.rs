//! The machine against a model that keeps a whole map for every revision, and does everything the slow way.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use quorate_coord::{
    machine::{Command, KvError, Machine, Reply, Response, check_txn},
    pb::{
        etcdserverpb::{
            CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
            PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
            TxnRequest, TxnResponse, compare::TargetUnion, request_op::Request, response_op,
        },
        mvccpb::KeyValue,
    },
};
use quorate_core::{Entry, EntryKind, Index, LogId, StateMachine as _, Term};

type Keys = BTreeMap<Bytes, KeyValue>;

/// All states there ever were; the place of each is its revision.
#[derive(Clone)]
struct Model {
    states: Vec<Keys>,
    compacted: i64,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn within(key: &[u8], begin: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == begin,
        [0] => key >= begin,
        _ => key >= begin && key < end,
    }
}

impl Model {
    fn new() -> Self {
        Self { states: vec![Keys::new(), Keys::new()], compacted: -1 }
    }

    fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    fn newest(&self) -> &Keys {
        self.states.last().unwrap()
    }

    fn check_revision(&self, revision: i64) -> Result<(), KvError> {
        match revision {
            _ if revision > self.revision() => Err(KvError::FutureRevision),
            _ if revision < self.compacted => Err(KvError::Compacted),
            _ => Ok(()),
        }
    }

    /// `now`: what is the newest for this read, and its revision.
    fn range(&self, request: &RangeRequest, now: &Keys, revision: i64) -> RangeResponse {
        let state = if request.revision > 0 { &self.states[request.revision as usize] } else { now };
        let matching = state.values().filter(|kv| within(&kv.key, &request.key, &request.range_end)).cloned();
        let mut kvs: Vec<KeyValue> = matching.collect();
        let count = kvs.len() as i64;
        if request.count_only {
            kvs.clear();
        }
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if request.limit > 0 && request.sort_order == 0 && bounds == [0; 4] {
            kvs.truncate(request.limit as usize + 1);
        }
        kvs.retain(|kv| {
            (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
                && (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
                && (request.min_create_revision == 0 || kv.create_revision >= request.min_create_revision)
                && (request.max_create_revision == 0 || kv.create_revision <= request.max_create_revision)
        });
        let number = |kv: &KeyValue| match request.sort_target {
            1 => kv.version,
            2 => kv.create_revision,
            3 => kv.mod_revision,
            _ => 0,
        };
        match (request.sort_target, request.sort_order) {
            (0, 2) => kvs.reverse(),
            (0, _) => {}
            (4, 2) => kvs.sort_by(|a, b| b.value.cmp(&a.value)),
            (4, _) => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
            (_, 2) => kvs.sort_by_key(|kv| std::cmp::Reverse(number(kv))),
            (_, _) => kvs.sort_by_key(number),
        }
        let more = request.limit > 0 && kvs.len() as i64 > request.limit;
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { header: header(revision), kvs, more, count }
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), KvError> {
        if (put.ignore_value || put.ignore_lease) && !self.newest().contains_key(&put.key) {
            return Err(KvError::KeyNotFound);
        }
        if put.lease == 0 { Ok(()) } else { Err(KvError::LeaseNotFound) }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut found: Vec<KeyValue> = self.newest().values().cloned().collect();
        found.retain(|kv| within(&kv.key, &compare.key, &compare.range_end));
        if found.is_empty() {
            if compare.target == 3 {
                return false;
            }
            found.push(KeyValue::default());
        }
        found.iter().all(|kv| {
            let ordering = match (compare.target, &compare.target_union) {
                (0, Some(TargetUnion::Version(n))) => kv.version.cmp(n),
                (1, Some(TargetUnion::CreateRevision(n))) => kv.create_revision.cmp(n),
                (2, Some(TargetUnion::ModRevision(n))) => kv.mod_revision.cmp(n),
                (3, Some(TargetUnion::Value(value))) => kv.value.cmp(value),
                (4, Some(TargetUnion::Lease(n))) => kv.lease.cmp(n),
                other => panic!("not generated: {other:?}"),
            };
            match compare.result {
                0 => ordering.is_eq(),
                1 => ordering.is_gt(),
                2 => ordering.is_lt(),
                _ => ordering.is_ne(),
            }
        })
    }

    /// All conditions are looked at first: `path` is how they turn out, in the order in which they are met, and `ops`
    /// what is to be done.
    fn look_ahead<'a>(&self, txn: &'a TxnRequest, path: &mut Vec<bool>, ops: &mut Vec<&'a Request>) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let op = op.request.as_ref().unwrap();
            ops.push(op);
            if let Request::RequestTxn(nested) = op {
                self.look_ahead(nested, path, ops);
            }
        }
    }

    /// Puts are looked at before reads.
    fn check_ops(&self, ops: &[&Request]) -> Result<(), KvError> {
        for op in ops {
            if let Request::RequestPut(put) = op {
                self.check_put(put)?;
            }
        }
        for op in ops {
            if let Request::RequestRange(range) = op
                && range.revision != 0
            {
                self.check_revision(range.revision)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, command: &Command) -> Result<Response, KvError> {
        let (before, mut now, next) = (self.revision(), self.newest().clone(), self.revision() + 1);
        let mut changed = false;
        let response = match command {
            Command::Put(request) => {
                if request.lease != 0 {
                    return Err(KvError::LeaseNotFound);
                }
                self.check_put(request)?;
                Response::Put(put(request, &mut now, next, &mut changed))
            }
            Command::DeleteRange(request) => {
                Response::DeleteRange(delete_range(request, &mut now, next, &mut changed))
            }
            Command::Txn(request) => {
                let (mut path, mut ops) = (Vec::new(), Vec::new());
                self.look_ahead(request, &mut path, &mut ops);
                self.check_ops(&ops)?;
                let mut response = self.txn(request, &mut path.into_iter(), &mut now, next, &mut changed);
                response.header = header(before + i64::from(changed));
                Response::Txn(response)
            }
            Command::Compact(request) => {
                if request.revision <= self.compacted {
                    return Err(KvError::Compacted);
                }
                self.check_revision(request.revision)?;
                self.compacted = request.revision;
                Response::Compact(CompactionResponse { header: header(before) })
            }
            // No key changes, nor the revision.
            Command::Recovered(_) => Response::Recovered,
        };
        if changed {
            self.states.push(now);
        }
        Ok(response)
    }

    fn txn(
        &self,
        txn: &TxnRequest,
        path: &mut impl Iterator<Item = bool>,
        now: &mut Keys,
        next: i64,
        changed: &mut bool,
    ) -> TxnResponse {
        let succeeded = path.next().unwrap();
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestRange(request) => {
                    let revision = next - i64::from(!*changed);
                    response_op::Response::ResponseRange(self.range(request, now, revision))
                }
                Request::RequestPut(request) => {
                    response_op::Response::ResponsePut(put(request, now, next, changed))
                }
                Request::RequestDeleteRange(request) => {
                    response_op::Response::ResponseDeleteRange(delete_range(request, now, next, changed))
                }
                Request::RequestTxn(request) => {
                    response_op::Response::ResponseTxn(self.txn(request, path, now, next, changed))
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        TxnResponse { header: header(0), succeeded, responses }
    }
}

fn put(request: &PutRequest, now: &mut Keys, next: i64, changed: &mut bool) -> PutResponse {
    *changed = true;
    let was = now.get(&request.key).cloned();
    let old = was.clone().unwrap_or(KeyValue { create_revision: next, ..KeyValue::default() });
    let value = if request.ignore_value { old.value } else { request.value.clone() };
    let kv = KeyValue {
        key: request.key.clone(),
        create_revision: old.create_revision,
        mod_revision: next,
        version: old.version + 1,
        value,
        lease: 0,
    };
    now.insert(request.key.clone(), kv);
    PutResponse { header: header(next), prev_kv: was.filter(|_| request.prev_kv) }
}

fn delete_range(
    request: &DeleteRangeRequest,
    now: &mut Keys,
    next: i64,
    changed: &mut bool,
) -> DeleteRangeResponse {
    let is_in = |kv: &&KeyValue| within(&kv.key, &request.key, &request.range_end);
    let gone: Vec<KeyValue> = now.values().filter(is_in).cloned().collect();
    for kv in &gone {
        now.remove(&kv.key);
        *changed = true;
    }
    DeleteRangeResponse {
        header: header(next - i64::from(!*changed)),
        deleted: gone.len() as i64,
        prev_kvs: if request.prev_kv { gone } else { vec![] },
    }
}

/// Few keys, some of them prefixes of others, so that they meet.
fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a\0", "a/", "a/1", "a/2", "b", "c", "\u{10ffff}"])
        .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn range_end() -> impl Strategy<Value = Bytes> {
    let ends = vec![&b""[..], b"", b"\0", b"a", b"a0", b"b", b"b\0", b"d", b"\xff"];
    prop::sample::select(ends).prop_map(Bytes::from_static)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "1", "2", "22"]).prop_map(|value| Bytes::from_static(value.as_bytes()))
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 2 => 0..24_i64, 1 => -3..0_i64]
}

fn a_range() -> impl Strategy<Value = RangeRequest> {
    let bound = || prop_oneof![3 => Just(0), 1 => 1..20_i64];
    let options = (any::<[bool; 3]>(), 0..3_i32, 0..5_i32, prop_oneof![Just(0), -1..5_i64]);
    let bounds = (bound(), bound(), bound(), bound());
    (key(), range_end(), revision(), options, bounds).prop_map(
        |(key, range_end, revision, (flags, sort_order, sort_target, limit), bounds)| RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order,
            sort_target,
            serializable: flags[0],
            keys_only: flags[1],
            count_only: flags[2],
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        },
    )
}

fn a_put() -> impl Strategy<Value = PutRequest> {
    let rarely = || prop::bool::weighted(0.1);
    (key(), value(), any::<bool>(), rarely(), rarely(), rarely()).prop_map(
        |(key, value, prev_kv, ignore_value, ignore_lease, lease)| PutRequest {
            key,
            value,
            lease: i64::from(lease),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn a_deletion() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn a_comparison() -> impl Strategy<Value = Compare> {
    let number = || 0..20_i64;
    let target = prop_oneof![
        (0..4_i64).prop_map(TargetUnion::Version),
        number().prop_map(TargetUnion::CreateRevision),
        number().prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        (0..2_i64).prop_map(TargetUnion::Lease),
    ];
    (key(), range_end(), 0..4_i32, target).prop_map(|(key, range_end, result, with)| Compare {
        result,
        target: match with {
            TargetUnion::Version(_) => 0,
            TargetUnion::CreateRevision(_) => 1,
            TargetUnion::ModRevision(_) => 2,
            TargetUnion::Value(_) => 3,
            TargetUnion::Lease(_) => 4,
        },
        key,
        range_end,
        target_union: Some(with),
    })
}

fn a_txn() -> impl Strategy<Value = TxnRequest> {
    let op = |request| RequestOp { request: Some(request) };
    let leaf = prop_oneof![
        a_range().prop_map(Request::RequestRange),
        a_put().prop_map(Request::RequestPut),
        a_deletion().prop_map(Request::RequestDeleteRange),
    ]
    .prop_map(op);
    let ops = leaf.prop_recursive(3, 12, 3, move |inner| {
        (vec(a_comparison(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3)).prop_map(
            move |(compare, success, failure)| {
                op(Request::RequestTxn(TxnRequest { compare, success, failure }))
            },
        )
    });
    (vec(a_comparison(), 0..3), vec(ops.clone(), 0..4), vec(ops, 0..4))
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}

pub(crate) fn a_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => a_put().prop_map(Command::Put),
        2 => a_deletion().prop_map(Command::DeleteRange),
        6 => a_txn().prop_map(Command::Txn),
        1 => (-1..24_i64)
            .prop_map(|revision| Command::Compact(CompactionRequest { revision, physical: false })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Commands, whether checked or not, answer as the model does; then every read does too, at every revision.
    #[test]
    fn the_machine_does_as_the_model(
        commands in vec(a_command(), 1..30),
        reads in vec(a_range(), 1..12),
    ) {
        let (mut machine, mut twin, mut model) = (Machine::new(), Machine::new(), Model::new());
        for command in commands {
            let reply = machine.apply_command(command.clone());
            prop_assert_eq!(&reply.result, &model.apply(&command), "{:?}", command);
            prop_assert_eq!(reply.revision, model.revision());
            prop_assert_eq!(Reply::try_from(Bytes::from(reply.clone())).unwrap(), reply.clone());
            let decoded = Command::decode(command.encode()).unwrap();
            prop_assert_eq!(twin.apply_command(decoded), reply);
            prop_assert_eq!(twin.digest(), machine.digest());
        }
        prop_assert_eq!(&twin, &machine);
        for read in reads {
            for revision in -1..=model.revision() + 1 {
                let read = RangeRequest { revision, ..read.clone() };
                let expected = if revision <= 0 { Ok(()) } else { model.check_revision(revision) };
                let expected = expected.map(|()| model.range(&read, model.newest(), model.revision()));
                prop_assert_eq!(machine.range(&read), expected, "{:?}", read);
            }
        }
    }

    /// Keys written twice are found as by looking at every pair.
    #[test]
    fn duplicates_are_found(txn in a_txn()) {
        let naive = [&txn.success, &txn.failure].into_iter().try_for_each(|ops| written(ops).map(drop));
        let refused = check_txn(&txn) == Err(KvError::DuplicateKey);
        // Puts that contradict themselves are refused before duplicates are looked for.
        prop_assume!(refused || check_txn(&txn).is_ok());
        prop_assert_eq!(refused, naive.is_err());
    }

    /// Whatever bytes are replicated: an answer that can travel, and never a panic.
    #[test]
    fn any_bytes_are_answered(payload in vec(any::<u8>(), 0..64)) {
        let mut machine = Machine::new();
        let entry = Entry {
            id: LogId::new(Term(1), Index(1)),
            kind: EntryKind::Command,
            payload: payload.into(),
        };
        let reply = machine.apply(&entry);
        prop_assert_eq!(reply.revision, machine.revision());
        prop_assert_eq!(Reply::try_from(Bytes::from(reply.clone())), Ok(reply));
    }
}

/// What a list of operations writes, by etcd's rules: keys that are put, and ranges that are deleted.
#[expect(clippy::type_complexity, reason = "it is all there is to say")]
fn written(ops: &[RequestOp]) -> Result<(Vec<Bytes>, Vec<(Bytes, Bytes)>), ()> {
    let requests = || ops.iter().map(|op| op.request.as_ref().unwrap());
    let mut deleted: Vec<_> = requests()
        .filter_map(|request| match request {
            Request::RequestDeleteRange(delete) => Some((delete.key.clone(), delete.range_end.clone())),
            _ => None,
        })
        .collect();
    let is_deleted = |deleted: &[(Bytes, Bytes)], key: &[u8]| {
        // A deletion to the end of the key space clashes with nothing.
        deleted.iter().any(|(begin, end)| end != "\0" && within(key, begin, end))
    };
    let mut puts: Vec<Bytes> = Vec::new();
    for request in requests() {
        let Request::RequestTxn(nested) = request else { continue };
        let (then, otherwise) = (written(&nested.success)?, written(&nested.failure)?);
        for key in then.0.iter().chain(&otherwise.0) {
            if puts.contains(key) || is_deleted(&deleted, key) {
                return Err(());
            }
        }
        for key in then.0.into_iter().chain(otherwise.0) {
            if !puts.contains(&key) {
                puts.push(key);
            }
        }
        deleted.extend(then.1.into_iter().chain(otherwise.1));
    }
    for request in requests() {
        let Request::RequestPut(put) = request else { continue };
        if puts.contains(&put.key) || is_deleted(&deleted, &put.key) {
            return Err(());
        }
        puts.push(put.key.clone());
    }
    Ok((puts, deleted))
}
