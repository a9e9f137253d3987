//! What the tests of workloads share.

use bytes::Bytes;
use quorate_core::{Entry, EntryKind, Index, LogId, Term};

use super::{Op, Random, Replicated, State, Workload, replica};

pub(super) fn entry(index: u64, payload: &[u8]) -> Entry {
    let id = LogId { term: Term(1), index: Index(index) };
    Entry { id, kind: EntryKind::Command, payload: Bytes::copy_from_slice(payload) }
}

/// Commands that a workload draws, as entries.
pub(super) fn commands(workload: &dyn Workload, seed: u64, count: u64) -> Vec<Entry> {
    let mut rng = Random::new(seed);
    let mut drawn = std::iter::repeat_with(|| workload.next(0, &mut rng));
    let mut next = || {
        drawn.find_map(|op| match op {
            Op::Write(command) => Some(command),
            Op::Read(_) => None,
        })
    };
    (1..=count).map(|index| entry(index, &next().unwrap())).collect()
}

/// What must hold of every machine: equal commands give equal replicas, and a snapshot is the whole state.
pub(super) fn holds_as_a_machine<M: Replicated>(new: impl Fn() -> M, workload: &dyn Workload) {
    let (mut one, mut restored) = (replica(new()), replica(new()));
    let mut rng = Random::new(2);
    let mut digests = Vec::new();
    for (i, entry) in commands(workload, 1, 1000).iter().enumerate() {
        let reply = one.apply(entry);
        assert_ne!(reply, b"\xFF"[..], "{entry:?} is a command");
        assert_eq!(reply, restored.apply(entry), "after {i} commands");
        assert_eq!(one.digest(), restored.digest(), "after {i} commands");
        digests.push(one.digest());
        if let Op::Read(query) = workload.next(1, &mut rng) {
            assert_eq!(one.read(&query), restored.read(&query));
        }
        if i % 50 == 0 {
            restored = replica(new());
            restored.restore(&one.snapshot()).unwrap();
            assert_eq!(one.digest(), restored.digest(), "after {i} commands, restored");
            assert_eq!(one.snapshot().bytes(), restored.snapshot().bytes());
        }
    }
    digests.sort_unstable();
    digests.dedup();
    assert!(digests.len() > 300, "most commands change the digest, not {} alone", digests.len());
    refuses_garbage(&one.snapshot(), |state| restored.restore(state));
    assert_eq!(one.digest(), restored.digest(), "what was refused has changed nothing");
}

fn refuses_garbage(good: &State, mut restore: impl FnMut(&State) -> Result<(), String>) {
    let bytes = good.bytes().to_vec();
    let mut longer = bytes.clone();
    longer.push(0);
    let shorter = bytes[..bytes.len() - 1].to_vec();
    let mut other_version = bytes;
    other_version[0] ^= 0x40;
    for garbage in [longer, shorter, other_version, Vec::new(), b"no snapshot at all".to_vec()] {
        let error = restore(&good.with_bytes(garbage)).unwrap_err();
        assert!(error.contains("snapshot"), "{error}");
    }
    restore(&State::new(Vec::new())).unwrap_err();
}
