//! The driver's side of the recorder: packs what happens into a buffer, and never waits for anything.

use std::{mem, sync::Arc, thread};

use quorate_core::{
    Action, Config, Input, Instant, Raft, Recovered,
    recording::{Digest, Ended, Head, NoteRef, Origin, Payloads, Polled, pack},
};

use super::queue::{Tape, Waiting};
use crate::{clock, error::StopReason};

/// Takes down what happens to one core.
pub(crate) struct Recorder {
    /// Of the present segment.
    head: Head,
    tape: Arc<Tape>,
    /// Bytes that the ring may have.
    max_bytes: u64,
    /// Are actions wanted?
    actions: bool,
    /// Nothing more is to be taken down.
    ended: bool,
    /// The node comes to an end that it should not.
    failed: bool,
    /// Bytes of this segment, and those of what it begins with.
    bytes: u64,
    begin_bytes: u64,
    /// What happens is left out, until the writer has caught up.
    lost: bool,
    /// Steps in this life, those that were left out included.
    steps: u64,
    /// Something has happened since the queue of actions was found empty.
    dirty: bool,
    /// Actions since the last note of them.
    count: u64,
    /// Of all actions in this segment.
    digest: Digest,
}

impl Recorder {
    pub(super) fn new(
        head: Head,
        config: &Config,
        recovered: &Recovered,
        tape: Arc<Tape>,
        max_bytes: u64,
        actions: bool,
    ) -> Self {
        let mut recorder = Self {
            head,
            tape,
            max_bytes,
            actions,
            ended: false,
            failed: false,
            bytes: 0,
            begin_bytes: 0,
            lost: false,
            steps: 0,
            dirty: false,
            count: 0,
            digest: Digest::default(),
        };
        recorder.begin(Origin::Start(config, recovered));
        recorder
    }

    /// The core is told something.
    pub(crate) fn step(&mut self, now: Instant, input: &Input) {
        self.steps += 1;
        self.head.now = now;
        self.dirty = true;
        if self.lost {
            return self.miss();
        }
        // It is told in the middle of what it wants done: where exactly, matters.
        let before = (self.count > 0).then(|| self.polls(true));
        self.put(|note, waiting| {
            if let Some(polled) = before {
                note(&NoteRef::Polled(polled), waiting);
            }
            note(&NoteRef::Step(now, input), waiting);
            waiting.status.steps += 1;
        });
    }

    /// The queue of actions was asked for the next one.
    pub(crate) fn polled(&mut self, raft: &Raft, action: Option<&Action>) {
        match action {
            Some(action) => {
                self.dirty = true;
                if self.lost {
                    return;
                }
                self.count += 1;
                self.digest.action(action);
                if self.actions {
                    self.put(|note, waiting| note(&NoteRef::Action(action), waiting));
                }
            }
            // Asking again changes nothing.
            None if !self.dirty && !self.lost => {}
            None => {
                self.dirty = false;
                if !self.lost {
                    let polled = self.polls(false);
                    self.put(|note, waiting| note(&NoteRef::Polled(polled), waiting));
                }
                self.begin_another(raft);
            }
        }
    }

    /// Nothing more is to be taken down.
    pub(crate) const fn is_over(&self) -> bool {
        self.ended
    }

    /// The node has come to its end.
    pub(crate) const fn stopped(&mut self, why: &StopReason) {
        self.failed = !matches!(why, StopReason::Shutdown | StopReason::Dropped);
    }

    /// Where the queue of actions is empty, a segment may begin: so no action that is still queued need be kept to judge what
    /// comes later.
    fn begin_another(&mut self, raft: &Raft) {
        let inputs = self.bytes - self.begin_bytes;
        let full = self.bytes >= self.max_bytes / 4 && inputs >= self.begin_bytes.max(self.max_bytes / 8);
        // Cores that wait for the writer take room as well; and without any the next stretch would be lost, too.
        if (full || self.lost) && self.tape.lock().has_room() {
            let origin = if mem::take(&mut self.lost) { Origin::Gap(raft) } else { Origin::Full(raft) };
            self.begin(origin);
        }
    }

    fn begin(&mut self, origin: Origin<'_>) {
        if !matches!(origin, Origin::Start(..)) {
            self.head.segment += 1;
            self.head.unix_us = clock::wall();
        }
        self.head.steps = self.steps;
        self.digest = Digest::default();
        self.count = 0;
        self.bytes = 0;
        let head = self.head.clone();
        self.put(|_, waiting| {
            waiting.begins.push(waiting.notes.len());
            // Of what the core holds, payloads are always left out: a replay does the same without them, and with them a core is
            // a hundred times as big.
            pack(&NoteRef::Begin(&head, origin), Payloads::LeftOut, &mut waiting.notes);
            waiting.begin_bytes += waiting.notes.len() - waiting.begins.last().copied().unwrap_or_default();
        });
        self.begin_bytes = self.bytes;
    }

    /// What has come out of the queue since the last note of that; `more`: nobody has found it empty yet.
    const fn polls(&mut self, more: bool) -> Polled {
        Polled { count: mem::replace(&mut self.count, 0), more, digest: self.digest.value().to_le_bytes() }
    }

    /// Adds notes, unless too much waits already.
    fn put(&mut self, put: impl FnOnce(&dyn Fn(&NoteRef<'_>, &mut Waiting), &mut Waiting)) {
        let payloads = self.head.payloads;
        let tape = &*self.tape;
        let mut waiting = tape.lock();
        if waiting.status.ended.is_some() {
            self.ended = true;
            return;
        }
        let before = waiting.notes.len();
        put(&|note, waiting| pack(note, payloads, &mut waiting.notes), &mut waiting);
        self.bytes += (waiting.notes.len() - before) as u64;
        if waiting.is_full() && !self.lost {
            self.lost = true;
            waiting.status.gaps += 1;
        }
        tape.added(waiting);
    }

    fn miss(&mut self) {
        self.tape.lock().status.missing += 1;
    }
}

/// The node has stopped, or its runtime drops it, or its driver has panicked.
impl Drop for Recorder {
    fn drop(&mut self) {
        if self.lost {
            self.put(|note, waiting| note(&NoteRef::End(Ended::Gap), waiting));
        } else {
            let polled = self.polls(true);
            self.put(|note, waiting| {
                if polled.count > 0 {
                    note(&NoteRef::Polled(polled), waiting);
                }
                note(&NoteRef::End(Ended::Stopped), waiting);
            });
        }
        self.tape.over(self.failed || thread::panicking());
    }
}
