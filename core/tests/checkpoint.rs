//! A core that is written in the middle of a run and read back goes on exactly as the one that was written (contract, point 3);
//! and no payload need be in what is written.

#[path = "common/chaos.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzzer")]
mod chaos;

use proptest::prelude::*;
use quorate_core::{
    Action, Batch, Few, Incarnation, Index, Input, Instant, Membership, NodeId, Proposal, Raft, Recovered,
    Run, Term, Token,
    recording::{Digest, Payloads, pack},
};

/// Takes a core down at one moment, and all that happens from then on.
struct Recorder {
    payloads: Payloads,
    /// Steps until that moment.
    left: usize,
    checkpoint: Option<Vec<u8>>,
    inputs: Vec<(Vec<u8>, Seen)>,
    /// The core as it was last seen.
    last: Vec<u8>,
}

/// What one step has led to: the core before it, and what was polled after it.
#[derive(Default, PartialEq, Debug)]
struct Seen {
    before: String,
    actions: Vec<Vec<u8>>,
    digest: u64,
    drained: bool,
}

impl Seen {
    fn add(&mut self, action: &Action, payloads: Payloads) {
        self.actions.push(packed(action, payloads));
        let mut digest = Digest::default();
        digest.add(&self.digest);
        digest.action(action);
        self.digest = digest.value();
    }
}

fn packed(item: &impl serde::Serialize, payloads: Payloads) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(item, payloads, &mut bytes);
    bytes
}

fn outside(raft: &Raft) -> String {
    format!("{:?} {:?}", raft.status(), raft.deadline())
}

impl chaos::Observer for Recorder {
    fn look(&mut self, raft: &Raft) {
        if self.left == 0 && self.checkpoint.is_none() {
            self.checkpoint = Some(packed(raft, self.payloads));
        }
        self.left = self.left.saturating_sub(1);
        if self.checkpoint.is_some() {
            self.last = packed(raft, self.payloads);
            self.inputs.push((Vec::new(), Seen { before: outside(raft), ..Seen::default() }));
        }
    }

    fn input(&mut self, now: Instant, input: &Input) {
        if let Some((bytes, _)) = self.inputs.last_mut() {
            *bytes = packed(&(now, input), self.payloads);
        }
    }

    fn action(&mut self, action: &Action) {
        if let Some((_, seen)) = self.inputs.last_mut() {
            seen.add(action, self.payloads);
        }
    }

    fn drained(&mut self) {
        if let Some((_, seen)) = self.inputs.last_mut() {
            seen.drained = true;
        }
    }
}

fn goes_on_as_it_would_have(bytes: &[u8], at: usize, payloads: Payloads) -> bool {
    let mut recorder =
        Recorder { payloads, left: at, checkpoint: None, inputs: Vec::new(), last: Vec::new() };
    chaos::run(bytes, &mut recorder);
    let Some(checkpoint) = &recorder.checkpoint else { return false };
    let mut raft: Raft = postcard::from_bytes(checkpoint).unwrap();
    assert_eq!(&packed(&raft, payloads), checkpoint, "it is written as it was read");
    let count = recorder.inputs.len();
    for (n, (input, recorded)) in recorder.inputs.iter().enumerate() {
        let mut seen = Seen { before: outside(&raft), drained: recorded.drained, ..Seen::default() };
        if n + 1 == count {
            assert_eq!(packed(&raft, payloads), recorder.last, "the whole core, at the end");
        }
        let (now, input): (Instant, Input) = postcard::from_bytes(input).unwrap();
        let _refused = raft.step(now, input);
        while recorded.drained
            && let Some(action) = raft.poll()
        {
            seen.add(&action, payloads);
        }
        assert_eq!(&seen, recorded, "step {n} after the checkpoint");
    }
    true
}

#[test]
fn a_core_that_is_read_back_goes_on_as_the_one_that_was_written() {
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    let taken = std::cell::Cell::new(0);
    proptest!(config, |(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0..300_usize, out: bool)| {
        let payloads = if out { Payloads::LeftOut } else { Payloads::Kept };
        taken.set(taken.get() + u32::from(goes_on_as_it_would_have(&bytes, at, payloads)));
    });
    assert!(taken.get() > 500, "only {} runs were long enough", taken.get());
}

const SECRET: &[u8] = b"the secret of a client";

fn contains(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

/// Wherever a core keeps payloads (its log, its queue of actions), and whatever brings them.
#[test]
fn payloads_can_be_left_out_of_everything() {
    let fresh = Recovered::fresh(Incarnation(1), Membership::of_voters([NodeId(1)]));
    let mut raft = Raft::new(quorate_core::Config::new(NodeId(1)), fresh, Instant(0)).unwrap();
    raft.step(Instant(0), Input::Tick).unwrap();
    let Some(Action::Write(write)) = raft.drain().find(|action| matches!(action, Action::Write(_))) else {
        panic!("it votes for itself")
    };
    raft.step(Instant(1), Input::Persisted(write.into_receipt())).unwrap();
    let propose = Input::Propose(Proposal::new(Token(7), Batch::from([SECRET, SECRET].as_slice())));
    let run = Run::commands(Term(1), Index(5), &[SECRET]).unwrap();
    let append = quorate_core::Body::Append {
        prev: quorate_core::LogId::new(Term(1), Index(4)),
        commit: Index(4),
        entries: Few::one(run.clone()),
    };
    let message = quorate_core::Message { term: Term(1), body: append };
    let received = Input::Receive { from: NodeId(2), message };
    let loaded = Input::Loaded {
        id: quorate_core::LoadId::default(),
        result: quorate_core::Loaded::Entries(Few::one(run)),
    };
    for input in [&propose, &received, &loaded] {
        let (kept, out) = (packed(input, Payloads::Kept), packed(input, Payloads::LeftOut));
        assert!(contains(&kept, SECRET) && !contains(&out, SECRET) && out.len() + 10 < kept.len());
        // The same shape, with zeros in it; and what is left out stays left out.
        let back: Input = postcard::from_bytes(&out).unwrap();
        let zeros = packed(&back, Payloads::Kept);
        assert_eq!((zeros.len(), packed(&back, Payloads::LeftOut)), (kept.len(), out));
    }
    raft.step(Instant(2), propose).unwrap();
    let (kept, out) = (packed(&raft, Payloads::Kept), packed(&raft, Payloads::LeftOut));
    // Once in the log, and once in the write that is to be polled.
    assert_eq!(kept.windows(SECRET.len()).filter(|window| *window == SECRET).count(), 4);
    assert!(!contains(&out, SECRET) && !contains(&out, &SECRET[..6]));
    let back: Raft = postcard::from_bytes(&out).unwrap();
    assert_eq!(back.status(), raft.status());
    assert_eq!(back.as_recovered(), raft.as_recovered());
}

/// What is written by hand is what postcard writes.
#[test]
fn what_is_packed_is_postcards_format() {
    let mut membership = Membership::of_voters([NodeId(1), NodeId(300)]);
    membership = Membership::decode(&membership.encode()).unwrap();
    let recovered = Recovered::fresh(Incarnation(u64::MAX), membership);
    let things = (
        (recovered, Some(true), None::<u8>, "text", 'ä', [1_u8, 2, 200]),
        (i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, -1_i64, 1.5_f32, -2.5_f64),
        (
            u8::MAX,
            u16::MAX,
            u32::MAX,
            u64::MAX,
            u128::MAX,
            (),
            std::collections::BTreeMap::from([(1, "one")]),
        ),
        (Input::Campaign, Ok::<u8, u16>(7), Err::<u8, u16>(700)),
    );
    assert_eq!(packed(&things, Payloads::Kept), postcard::to_stdvec(&things).unwrap());
}
