//! The onlooker who remembers: what happened lately, and what every node was before that.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use quorate_core::{Action, Message, Raft};
use serde::Serialize;

use super::{
    state::{Delta, State},
    words,
};
use crate::{
    violation::Verdict,
    watch::{Seen, Step, Stimulus, Watch},
};

/// Something that happened.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    #[serde(rename = "t")]
    pub(crate) at: u64,
    /// The node's id; 0: the cluster.
    #[serde(rename = "n")]
    pub(crate) node: u64,
    #[serde(rename = "k")]
    pub(crate) kind: &'static str,
    #[serde(rename = "l")]
    pub(crate) label: String,
    /// What the node's clock showed.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<u64>,
    /// What was done, a line each.
    #[serde(rename = "d", skip_serializing_if = "Vec::is_empty")]
    pub(crate) details: Vec<String>,
    /// The message that came.
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<u64>,
    /// Tokens asked for: the first, and how many.
    #[serde(rename = "q", skip_serializing_if = "Option::is_none")]
    pub(crate) asks: Option<(u64, u64)>,
    /// Tokens resolved: the first, how many, and how.
    #[serde(rename = "z", skip_serializing_if = "Vec::is_empty")]
    pub(crate) ends: Vec<(u64, u64, String)>,
    /// Whom a fault concerns.
    #[serde(rename = "w", skip_serializing_if = "Vec::is_empty")]
    pub(crate) whom: Vec<u64>,
    #[serde(rename = "x", skip_serializing_if = "Delta::is_empty")]
    pub(crate) delta: Delta,
}

/// A message on its way, or no longer.
#[derive(Debug, Serialize)]
pub(crate) struct Letter {
    #[serde(rename = "i")]
    id: u64,
    #[serde(rename = "f")]
    from: u64,
    #[serde(rename = "o")]
    to: u64,
    #[serde(rename = "k")]
    kind: &'static str,
    #[serde(rename = "t")]
    term: u64,
    #[serde(rename = "l")]
    says: String,
    /// When it was sent, if that was seen.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    /// When, and why, copies of it were lost.
    #[serde(rename = "x", skip_serializing_if = "Vec::is_empty")]
    lost: Vec<(u64, &'static str)>,
    /// When somebody took it up last.
    #[serde(skip)]
    seen: u64,
}

/// The last events of a run.
#[derive(Debug)]
pub(crate) struct Recording {
    most: usize,
    /// Events that are forgotten.
    pub(crate) forgotten: u64,
    /// Every node before the first event.
    pub(crate) before: Vec<State>,
    now: Vec<State>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) letters: BTreeMap<u64, Letter>,
}

impl Recording {
    /// One that remembers this many events.
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            most,
            forgotten: 0,
            before: Vec::new(),
            now: Vec::new(),
            events: VecDeque::new(),
            letters: BTreeMap::new(),
        }
    }

    /// The messages that an event of this recording has to do with.
    pub(crate) fn letters(&self) -> impl Iterator<Item = &Letter> {
        let start = self.events.front().map_or(0, |event| event.at);
        self.letters.values().filter(move |letter| {
            letter.sent.is_some_and(|sent| sent >= start)
                || letter.seen >= start
                || letter.lost.iter().any(|(at, _)| *at >= start)
        })
    }

    fn note(&mut self, seen: &Seen<'_>, at: u64) {
        match seen {
            Seen::Provisioned { slot, membership } => {
                let label = format!("provisioned: {}", words::membership(membership));
                let fresh = State::fresh(membership);
                self.change(at, *slot, "provisioned", label, |state| *state = fresh);
            }
            Seen::Started { slot, raft } => {
                let label = format!("starts in T{}, log up to {}", raft.term(), raft.last());
                self.change(at, *slot, "start", label, |state| state.start(raft));
            }
            Seen::Crashed { slot, kept, lost } => {
                let label = format!("crashes: {kept} unfinished writes kept, {lost} lost");
                self.change(at, *slot, "crash", label, State::crash);
            }
            Seen::Stepped(step) => self.step(at, step),
            Seen::Durable { slot, write } => {
                let label = format!("durable: {}", words::write(write));
                self.change(at, *slot, "durable", label, |state| state.on_disk(write));
            }
            Seen::Sent { id, from, to, message } => {
                let letter = letter(*id, *from as u64 + 1, *to as u64 + 1, message);
                self.letters.insert(*id, Letter { sent: Some(at), ..letter });
            }
            Seen::Lost { id, why } => {
                if let Some(letter) = self.letters.get_mut(id) {
                    letter.lost.push((at, why));
                }
            }
            // The core's own step says it, too.
            Seen::Applied { restored: false, .. } => {}
            Seen::Applied { slot, index, restored: true } => {
                self.change(at, *slot, "snapshot", format!("restored the snapshot at {index}"), |_| ());
            }
            Seen::SnapshotTaken { slot, index } => {
                self.change(at, *slot, "snapshot", format!("has a durable snapshot at {index}"), |_| ());
            }
            Seen::Fault { slots, what } => self.fault(at, slots, what),
        }
    }

    fn step(&mut self, at: u64, step: &Step<'_>) {
        let Step { slot, now, stimulus, result, actions, raft } = step;
        let (kind, mut label) = words::stimulus(stimulus);
        for headline in actions.iter().filter_map(words::headline) {
            label.push_str(" → ");
            label.push_str(&headline);
        }
        let mut ends = Vec::new();
        let asks = words::asks(stimulus);
        if let Err(rejected) = result {
            label.push_str(" ✗ ");
            label.push_str(&rejected.to_string());
            ends.extend(asks.map(|(first, count)| (first, count, format!("refused: {rejected}"))));
        }
        let details = actions.iter().filter_map(words::action).collect();
        for action in *actions {
            words::ends(action, |first, count, how| ends.push((first, count, how)));
        }
        let message = match stimulus {
            Stimulus::Receive { id, from, message } => {
                let letter =
                    self.letters.entry(*id).or_insert_with(|| letter(*id, from.0, *slot as u64 + 1, message));
                letter.seen = at;
                Some(*id)
            }
            _ => None,
        };
        let whom = Vec::new();
        let delta = self.delta(*slot, |state| look(state, at, step, raft));
        let node = *slot as u64 + 1;
        let clock = Some(now.0);
        self.push(Event { at, node, kind, label, clock, details, message, asks, ends, whom, delta });
    }

    /// Stopped processes are told by their faults alone: there is nothing else of them to see.
    fn fault(&mut self, at: u64, slots: &[usize], what: &str) {
        let stops =
            ["is stopped", "is paused", "pauses", "stops for"].iter().any(|words| what.contains(words));
        let goes_on = ["goes on", "resumes", "is resumed"].iter().any(|words| what.contains(words));
        let single = match slots {
            [slot] if *slot < self.now.len() => Some(*slot),
            _ => None,
        };
        let delta = single.map_or_else(Delta::default, |slot| {
            self.delta(slot, |state| match state.life {
                'U' if stops => state.life = 'P',
                'P' if goes_on => state.life = 'U',
                _ => {}
            })
        });
        let whom = slots.iter().map(|slot| *slot as u64 + 1).collect();
        let node = single.map_or(0, |slot| slot as u64 + 1);
        self.push(Event { whom, ..event(at, node, "fault", what.to_owned(), delta) });
    }

    fn change(
        &mut self,
        at: u64,
        slot: usize,
        kind: &'static str,
        label: String,
        change: impl FnOnce(&mut State),
    ) {
        let delta = self.delta(slot, change);
        self.push(event(at, slot as u64 + 1, kind, label, delta));
    }

    /// Changes a node, and says how.
    fn delta(&mut self, slot: usize, change: impl FnOnce(&mut State)) -> Delta {
        while self.now.len() <= slot {
            self.now.push(State { life: '-', role: 'F', ..State::default() });
            self.before.push(State { life: '-', role: 'F', ..State::default() });
        }
        let Some(state) = self.now.get_mut(slot) else { return Delta::default() };
        let before = state.clone();
        change(state);
        state.since(&before)
    }

    fn push(&mut self, event: Event) {
        self.events.push_back(event);
        while self.events.len() > self.most {
            let Some(oldest) = self.events.pop_front() else { break };
            self.forgotten += 1;
            let slot = oldest.node.checked_sub(1).and_then(|slot| usize::try_from(slot).ok());
            if let Some(state) = slot.and_then(|slot| self.before.get_mut(slot)) {
                state.change(&oldest.delta);
            }
        }
        // Old messages may yet be taken up, but not for ever.
        while self.letters.len() > 4 * self.most {
            self.letters.pop_first();
        }
    }
}

fn look(state: &mut State, at: u64, step: &Step<'_>, raft: &Raft) {
    for action in step.actions {
        if let Action::Write(write) = action {
            state.write(write);
        }
    }
    state.look(at, step.now, raft);
}

fn event(at: u64, node: u64, kind: &'static str, label: String, delta: Delta) -> Event {
    Event {
        at,
        node,
        kind,
        label,
        clock: None,
        details: Vec::new(),
        message: None,
        asks: None,
        ends: Vec::new(),
        whom: Vec::new(),
        delta,
    }
}

fn letter(id: u64, from: u64, to: u64, message: &Message) -> Letter {
    Letter {
        id,
        from,
        to,
        kind: words::kind(message),
        term: message.term.0,
        says: words::message(message),
        sent: None,
        lost: Vec::new(),
        seen: 0,
    }
}

/// Looks on, and writes down what it sees for somebody else to read.
#[derive(Debug)]
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Recording>>);

impl Watch for Recorder {
    fn see(&mut self, at: u64, seen: &Seen<'_>) -> Verdict {
        // Nobody else holds it while the run goes on; had its holder panicked, what it wrote would do.
        let mut recording = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        recording.note(seen, at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::Membership;

    use super::*;

    fn life(recording: &Recording, slot: usize) -> char {
        recording.now[slot].life
    }

    #[test]
    fn a_stopped_process_is_shown_as_stopped() {
        let mut recording = Recording::new(100);
        let membership = Membership::of_voters([quorate_core::NodeId(1), quorate_core::NodeId(2)]);
        for slot in 0..2 {
            recording.note(&Seen::Provisioned { slot, membership: &membership }, 0);
            recording.now[slot].life = 'U';
        }
        recording.note(&Seen::Fault { slots: &[1], what: "n2 is stopped for 5 µs" }, 1);
        assert_eq!([life(&recording, 0), life(&recording, 1)], ['U', 'P']);
        recording.note(&Seen::Fault { slots: &[1], what: "n2 goes on" }, 2);
        assert_eq!(life(&recording, 1), 'U');
        recording.note(&Seen::Fault { slots: &[0, 1], what: "cut: n1 and n2" }, 3);
        recording.note(&Seen::Crashed { slot: 1, kept: 0, lost: 1 }, 4);
        assert_eq!(life(&recording, 1), 'D');
        let last = recording.events.iter().rev().nth(1).unwrap();
        assert_eq!((last.node, &last.whom[..]), (0, &[1, 2][..]));
    }

    #[test]
    fn remembers_no_more_than_it_may() {
        let mut recording = Recording::new(3);
        for at in 0..10 {
            recording.note(&Seen::Fault { slots: &[], what: "x" }, at);
        }
        assert_eq!((recording.events.len(), recording.forgotten), (3, 7));
    }
}
