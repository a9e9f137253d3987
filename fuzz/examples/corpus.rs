//! Writes the corpora anew: `cargo run -p quorate-fuzz --example corpus`. To be done when what their bytes mean has
//! changed: a message has other fields, or `core/tests/common/chaos.rs` makes other choices.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use quorate_core::{
    Body, Incarnation, Index, LogId, Membership, MembershipParts, Message, NodeId, RequestId, Run, Snapshot,
    Term, wire,
};
use quorate_fuzz::features;

/// So many random runs are looked at,
const RUNS: u64 = 100_000;

/// of at most so many bytes.
const MAX_LEN: u64 = 500;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    write(&corpus.join("wire"), messages())?;
    let seeds = seeds();
    println!("{} seeds of {} bytes", seeds.len(), seeds.iter().map(Vec::len).sum::<usize>());
    write(&corpus.join("core"), (0..).map(|n| format!("{n:02}")).zip(seeds))
}

/// These files and no others.
fn write(dir: &Path, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    files.into_iter().try_for_each(|(name, bytes)| fs::write(dir.join(name), bytes))
}

/// One message of each kind.
fn messages() -> Vec<(String, Vec<u8>)> {
    let id = RequestId { incarnation: Incarnation(3), number: 12 };
    let (last, commit) = (LogId::new(Term(4), Index(9)), Index(8));
    let joint = Membership::try_from(MembershipParts {
        voters: [1, 2, 4].map(NodeId).to_vec(),
        outgoing: [1, 2, 3].map(NodeId).to_vec(),
        learners: [5, 6].map(NodeId).to_vec(),
        joining: vec![NodeId(6)],
        ..MembershipParts::default()
    });
    let joint = joint.unwrap_or_else(|error| unreachable!("it is one: {error}"));
    let entries = [
        Some(Run::noop(Term(4), Index(10))),
        Run::commands(Term(4), Index(11), &[b"one".as_slice(), b"", b"three"]),
        Some(Run::membership(Term(5), Index(14), &joint)),
    ];
    let entries = entries.into_iter().flatten().collect();
    let bodies = [
        ("append", Body::Append { prev: last, commit, entries }),
        ("append-empty", Body::Append { prev: last, commit, entries: [].into_iter().collect() }),
        ("appended", Body::Appended { up_to: last.index }),
        ("commit", Body::Commit { commit }),
        ("conflict", Body::Conflict { prev: Index(11), hint: last }),
        ("heartbeat", Body::Heartbeat { commit, round: 77, quiesce: false }),
        ("heartbeat-quiesce", Body::Heartbeat { commit, round: 78, quiesce: true }),
        ("heartbeat-reply", Body::HeartbeatReply { round: 77, asleep: false }),
        ("heartbeat-reply-asleep", Body::HeartbeatReply { round: 78, asleep: true }),
        (
            "install-snapshot",
            Body::InstallSnapshot { snapshot: Box::new(Snapshot { last, membership: joint }) },
        ),
        ("pre-vote", Body::PreVote { id, last }),
        ("pre-vote-reply", Body::PreVoteReply { id, granted: true }),
        ("read-index", Body::ReadIndex { id }),
        ("read-index-reply", Body::ReadIndexReply { id, index: Some(commit) }),
        ("read-index-refused", Body::ReadIndexReply { id, index: None }),
        ("timeout-now", Body::TimeoutNow),
        ("vote", Body::Vote { last, commit: LogId::new(Term(4), commit), transfer: true }),
        ("vote-reply", Body::VoteReply { granted: true, commit: last }),
    ];
    let encoded = |(name, body): (&str, Body)| {
        let frame = wire::encode(&Message { term: Term(5), body });
        (name.to_owned(), frame.to_bytes().to_vec())
    };
    bodies.into_iter().map(encoded).collect()
}

/// Few and short runs that together meet whatever any of very many meets.
fn seeds() -> Vec<Vec<u8>> {
    let mut rng = 0x9E37_u64;
    let mut random = |below: u64| {
        rng = rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (rng ^ (rng >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 32) % below
    };
    // Only those that met something for the first time, or in fewer bytes, can be among the seeds.
    let mut runs: Vec<(Vec<u8>, BTreeSet<String>)> = Vec::new();
    let mut shortest: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..RUNS {
        // As a fuzzer does it: something new, or something that has led somewhere and goes on in another way.
        let mut bytes = Vec::new();
        if !runs.is_empty() && random(2) == 0 {
            let (before, _) = &runs[random(runs.len() as u64) as usize];
            bytes.extend_from_slice(&before[..random(before.len() as u64 + 1) as usize]);
        }
        let more = 20 + random(MAX_LEN - 20);
        bytes.extend((0..more).map(|_| random(256) as u8));
        bytes.truncate(MAX_LEN as usize);
        let met = features(&bytes);
        let better: Vec<_> = met
            .iter()
            .filter(|what| shortest.get(*what).is_none_or(|len| bytes.len() < *len))
            .cloned()
            .collect();
        if !better.is_empty() {
            shortest.extend(better.into_iter().map(|what| (what, bytes.len())));
            runs.push((bytes, met));
        }
    }
    let mut missing: BTreeSet<&String> = shortest.keys().collect();
    println!("{} different things met", missing.len());
    let mut seeds = Vec::new();
    while !missing.is_empty() {
        let news = |met: &BTreeSet<String>| met.iter().filter(|what| missing.contains(what)).count();
        // The most that is new for its length.
        let Some((bytes, met)) =
            runs.iter().max_by_key(|(bytes, met)| news(met) * 10_000 / (bytes.len() + 50))
        else {
            break;
        };
        let wanted: BTreeSet<_> = met.iter().filter(|what| missing.contains(what)).collect();
        let shortest = (0..=bytes.len()).find(|len| {
            let met = features(&bytes[..*len]);
            wanted.iter().all(|what| met.contains(*what))
        });
        seeds.push(bytes[..shortest.unwrap_or(bytes.len())].to_vec());
        missing.retain(|what| !wanted.contains(*what));
    }
    seeds
}
