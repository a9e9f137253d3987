//! The coordination engine's store, as a machine to be simulated.

use bytes::Bytes;
use prost::Message as _;
use quorate_coord::{
    machine::{Command, Machine},
    pb::etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
    },
};
use quorate_core::{Entry, Frozen as _, StateMachine};

use super::{
    Op, Random, Replicated, State, Workload,
    codec::{Reader, check_version},
    machine::fingerprint,
};
use crate::digest::Digest;

/// The format of snapshots.
const VERSION: u8 = 1;

/// How often the whole store is hashed, in commands.
const WHOLE: u64 = 64;

/// The store. Its snapshot is the store's own, after the number of commands and the digest.
///
/// To hash its whole history after every command would take longer than all the rest of a run. So the digest is a chain over
/// commands and replies, which takes up the whole store's hash now and then: replicas that differ are told apart when that
/// shows in a reply, and soon in any case.
#[derive(Clone, Default, Debug)]
pub struct Coord {
    store: Machine,
    applied: u64,
    chain: u64,
}

impl Coord {
    /// The store itself.
    #[must_use]
    pub const fn store(&self) -> &Machine {
        &self.store
    }
}

impl StateMachine for Coord {
    /// An encoded [`Reply`](quorate_coord::machine::Reply).
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        let reply = Bytes::from(self.store.apply(entry));
        self.applied += 1;
        self.chain = fingerprint(&(self.chain, Digest::of(&entry.payload), Digest::of(&reply)));
        if self.applied.is_multiple_of(WHOLE) {
            self.chain = fingerprint(&(self.chain, self.store.digest()));
        }
        reply
    }
}

impl Replicated for Coord {
    fn snapshot(&self) -> State {
        let mut out = vec![VERSION];
        out.extend_from_slice(&[self.applied, self.chain].map(u64::to_le_bytes).concat());
        // A vector takes whatever it is given.
        let _infallible = self.store.write(&mut out);
        State::new(out)
    }

    fn restored(state: &State) -> Result<Self, String> {
        let mut reader = Reader(state.bytes());
        check_version("the snapshot of the store", reader.u8(), VERSION)?;
        let (applied, chain) = reader.u64().zip(reader.u64()).ok_or("the snapshot is cut short")?;
        let store = Machine::read_snapshot(&mut reader.0).map_err(|error| error.to_string())?;
        Ok(Self { store, applied, chain })
    }

    fn digest(&self) -> u64 {
        self.chain
    }

    /// A query is a `RangeRequest`, its answer 0 and a `RangeResponse`, or 1 and what is wrong in words.
    fn read(&self, query: &[u8]) -> Bytes {
        let found = RangeRequest::decode(query).map_err(|error| error.to_string());
        let found = found.and_then(|range| self.store.range(&range).map_err(|error| error.to_string()));
        let (kind, body) = match found {
            Ok(response) => (0, response.encode_to_vec()),
            Err(error) => (1, error.into_bytes()),
        };
        let mut out = vec![kind];
        out.extend(body);
        out.into()
    }
}

/// Clients that put, delete, compare, read and compact a few keys.
#[derive(Clone, Copy, Debug)]
pub struct CoordLoad {
    /// How many keys.
    pub keys: u64,
    /// How much of it is reads.
    pub reads: f64,
}

impl CoordLoad {
    fn key(&self, rng: &mut Random) -> Bytes {
        format!("key{}", rng.below(self.keys.max(1))).into()
    }

    /// One key, or several.
    fn keys(&self, rng: &mut Random) -> (Bytes, Bytes) {
        let end = if rng.chance(0.3) { Bytes::from_static(b"kez") } else { Bytes::new() };
        (self.key(rng), end)
    }

    fn range(&self, rng: &mut Random) -> RangeRequest {
        let (key, range_end) = self.keys(rng);
        // An older revision may be compacted, or not be there yet: that is an answer, too.
        let revision = if rng.chance(0.2) { revision(rng) } else { 0 };
        let limit = if rng.chance(0.2) { 2 } else { 0 };
        RangeRequest { key, range_end, revision, limit, ..RangeRequest::default() }
    }

    fn put(&self, rng: &mut Random) -> PutRequest {
        let value = format!("{:x}", if rng.chance(0.5) { rng.below(4) } else { rng.bits() });
        let prev_kv = rng.chance(0.5);
        PutRequest { key: self.key(rng), value: value.into(), prev_kv, ..PutRequest::default() }
    }

    fn delete(&self, rng: &mut Random) -> DeleteRangeRequest {
        let (key, range_end) = self.keys(rng);
        DeleteRangeRequest { key, range_end, prev_kv: rng.chance(0.5) }
    }

    fn compare(&self, rng: &mut Random) -> Compare {
        let results = [CompareResult::Equal, CompareResult::Greater, CompareResult::Less];
        let result = results[rng.below(3) as usize];
        let (target, with) = match rng.below(3) {
            0 => {
                let value = format!("{:x}", rng.below(4));
                (CompareTarget::Value, TargetUnion::Value(value.into()))
            }
            1 => (CompareTarget::Version, TargetUnion::Version(rng.below(4) as i64)),
            _ => (CompareTarget::Mod, TargetUnion::ModRevision(revision(rng))),
        };
        Compare {
            result: result.into(),
            target: target.into(),
            key: self.key(rng),
            target_union: Some(with),
            ..Compare::default()
        }
    }

    fn branch(&self, rng: &mut Random) -> Vec<RequestOp> {
        // A transaction may put a key only once; so there is one put at most, and reads around it.
        let mut ops = vec![Request::RequestRange(self.range(rng))];
        match rng.below(3) {
            0 => ops.push(Request::RequestPut(self.put(rng))),
            1 => ops.push(Request::RequestDeleteRange(self.delete(rng))),
            _ => {}
        }
        rng.shuffle(&mut ops);
        ops.into_iter().map(|request| RequestOp { request: Some(request) }).collect()
    }
}

/// Small ones more often: whether it exists isn't known here.
fn revision(rng: &mut Random) -> i64 {
    let magnitude = rng.below(12);
    rng.between(1, 1 << magnitude) as i64
}

impl Workload for CoordLoad {
    fn next(&self, _client: usize, rng: &mut Random) -> Op {
        if rng.chance(self.reads) {
            return Op::Read(self.range(rng).encode_to_vec().into());
        }
        let command = match rng.below(20) {
            0..=8 => Command::Put(self.put(rng)),
            9..=11 => Command::DeleteRange(self.delete(rng)),
            12..=18 => {
                let compare = (0..rng.between(1, 2)).map(|_| self.compare(rng)).collect();
                Command::Txn(TxnRequest { compare, success: self.branch(rng), failure: self.branch(rng) })
            }
            _ => Command::Compact(CompactionRequest { revision: revision(rng), physical: false }),
        };
        Op::Write(command.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{
        Request as Session, Sessions,
        testing::{commands, entry, holds_as_a_machine},
    };
    use quorate_coord::machine::{Reply, Response};

    const LOAD: CoordLoad = CoordLoad { keys: 5, reads: 0.3 };

    #[test]
    fn holds() {
        holds_as_a_machine(Coord::default, &LOAD);
    }

    #[test]
    fn is_restored_within_sessions() {
        let mut one = Sessions::new(Coord::default(), 2);
        one.apply(&entry(1, &Session::Open.encode()));
        for (sequence, command) in (1..).zip(commands(&LOAD, 1, 50)) {
            let command = command.payload;
            let request = Session::Command { session: 1, sequence, acknowledged: 0, command };
            one.apply(&entry(1 + sequence, &request.encode()));
        }
        assert!(one.machine().store().revision() > 20);
        let other = Sessions::<Coord>::restored(&one.snapshot()).unwrap();
        assert_eq!((one.digest(), one.machine().digest()), (other.digest(), other.machine().digest()));
    }

    #[test]
    fn the_load_does_something_of_everything() {
        let mut coord = Coord::default();
        let mut kinds = [0; 6];
        for entry in commands(&LOAD, 1, 2000) {
            let reply = Reply::try_from(coord.apply(&entry)).unwrap();
            let kind = match reply.result {
                Ok(Response::Put(_)) => 0,
                Ok(Response::DeleteRange(_)) => 1,
                Ok(Response::Txn(txn)) => 2 + usize::from(txn.succeeded),
                Ok(Response::Compact(_)) => 4,
                Ok(Response::Recovered) => unreachable!("no client asks for that"),
                Err(_) => 5,
            };
            kinds[kind] += 1;
        }
        assert!(kinds.iter().all(|count| *count >= 5), "{kinds:?}");
    }
}
