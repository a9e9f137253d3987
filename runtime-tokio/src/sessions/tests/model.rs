//! The machine against a naive model: everything that was ever said is kept, and looked up.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;

/// What a random log holds. Sessions are picked among all that ever were.
#[derive(Clone, Debug)]
enum Step {
    Register {
        time: u64,
    },
    Expire {
        pick: usize,
        time: u64,
    },
    Apply {
        pick: usize,
        seq: u64,
        acknowledged: u64,
        time: u64,
    },
    Configure(Limits),
    /// From here on, a replica that was restored from a snapshot goes on.
    Snapshot,
}

fn limits() -> impl Strategy<Value = Limits> {
    let idle = prop_oneof![Just(None), (1..200_u64).prop_map(|ms| Some(Duration::from_millis(ms)))];
    (1..5_u32, 1..6_u32, 1..40_u64, idle).prop_map(|(sessions, outstanding, reply_bytes, idle)| Limits {
        sessions,
        outstanding,
        reply_bytes,
        idle,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let time = prop_oneof![Just(0_u64), 1..1000_u64];
    prop_oneof![
        3 => time.clone().prop_map(|time| Step::Register { time }),
        1 => (0..8_usize, time.clone()).prop_map(|(pick, time)| Step::Expire { pick, time }),
        20 => (0..8_usize, 1..12_u64, 0..8_u64, time)
            .prop_map(|(pick, seq, acknowledged, time)| Step::Apply { pick, seq, acknowledged, time }),
        1 => limits().prop_map(Step::Configure),
        2 => Just(Step::Snapshot),
    ]
}

/// One session, from its registration to its end.
struct Life {
    id: u64,
    used: u64,
    seen: u64,
    acknowledged: u64,
    /// All that were applied, with what was replied.
    replies: BTreeMap<u64, Bytes>,
}

struct Model {
    limits: Limits,
    clock: u64,
    lives: Vec<Life>,
    applied: Vec<Bytes>,
}

impl Model {
    fn tell(&mut self, time: u64) {
        if self.clock == 0 {
            self.lives.iter_mut().for_each(|life| life.seen = time);
        }
        self.clock = self.clock.max(time);
        self.end_idle();
    }

    fn end_idle(&mut self) {
        if let Some(idle) = self.limits.idle {
            let clock = self.clock;
            self.lives.retain(|life| clock - life.seen <= idle.as_millis() as u64);
        }
    }

    fn end_surplus(&mut self) {
        while self.lives.len() > self.limits.sessions as usize {
            let first = self.lives.iter().map(|life| life.used).min();
            self.lives.retain(|life| Some(life.used) != first);
        }
    }

    fn register(&mut self, index: u64, time: u64) -> Reply {
        self.tell(time);
        let (acknowledged, replies) = (0, BTreeMap::new());
        self.lives.push(Life { id: index, used: index, seen: self.clock, acknowledged, replies });
        self.end_surplus();
        Reply::Registered { session: SessionId(index), outstanding: self.limits.outstanding }
    }

    fn apply(
        &mut self,
        index: u64,
        (id, seq, acknowledged, time): (u64, u64, u64, u64),
        text: &Bytes,
    ) -> Reply {
        self.tell(time);
        let Some(life) = self.lives.iter_mut().find(|life| life.id == id) else {
            return Reply::UnknownSession;
        };
        (life.used, life.seen) = (index, self.clock);
        life.acknowledged = life.acknowledged.max(acknowledged);
        if seq <= life.acknowledged {
            return Reply::Stale;
        }
        if let Some(reply) = life.replies.get(&seq) {
            return Reply::Applied(reply.clone());
        }
        if seq > life.acknowledged + u64::from(self.limits.outstanding) {
            return Reply::TooFarAhead;
        }
        let kept = life.replies.iter().filter(|(seq, _)| **seq > life.acknowledged);
        let kept: u64 = kept.map(|(_, reply)| reply.len() as u64).sum();
        if kept >= self.limits.reply_bytes && seq != life.acknowledged + 1 {
            return Reply::Full;
        }
        self.applied.push(text.clone());
        let reply = reply_to(text, self.applied.len());
        life.replies.insert(seq, reply.clone());
        Reply::Applied(reply)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_a_model_that_forgets_nothing(first in limits(), steps in prop::collection::vec(step(), 1..120)) {
        let mut machine = sessions(first);
        // Never restored: it has to be the same as one that often is.
        let mut steady = sessions(first);
        let mut model = Model { limits: first, clock: 0, lives: Vec::new(), applied: Vec::new() };
        let mut ids = vec![999_999];
        for (index, step) in (1..).zip(steps) {
            let id = |pick: usize| ids[pick % ids.len()];
            let (command, expected) = match step {
                Step::Register { time } => {
                    let expected = model.register(index, time);
                    ids.push(index);
                    (Command::Register { time }, expected)
                }
                Step::Expire { pick, time } => {
                    let id = id(pick);
                    model.tell(time);
                    model.lives.retain(|life| life.id != id);
                    (Command::Expire { session: SessionId(id), time }, Reply::Expired)
                }
                Step::Apply { pick, seq, acknowledged, time } => {
                    let id = id(pick);
                    // A retry has the same bytes.
                    let command = Bytes::from(format!("{id}/{seq}"));
                    let expected = model.apply(index, (id, seq, acknowledged, time), &command);
                    (Command::Apply { session: SessionId(id), seq, acknowledged, time, command }, expected)
                }
                Step::Configure(limits) => {
                    model.limits = limits;
                    model.end_surplus();
                    model.end_idle();
                    (Command::Configure(limits), Reply::Configured)
                }
                Step::Snapshot => {
                    machine = replica(&machine);
                    continue;
                }
            };
            let entry = entry(index, command);
            prop_assert_eq!(machine.apply(&entry), expected, "entry {}", index);
            steady.apply(&entry);
            prop_assert_eq!(machine.open(), model.lives.len());
            prop_assert_eq!(machine.state_hash(), steady.state_hash());
        }
        prop_assert_eq!(&machine.machine().0, &model.applied);
        let mut once = model.applied.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), model.applied.len(), "applied twice");
    }
}
