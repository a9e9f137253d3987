//! The driver's side of the recorder: notes down, hands over, and never waits.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::Sender},
};

use quorate_core::{
    Action, Body, Input, Instant, Loaded, NodeId, Run,
    recording::{Digest, Polled},
};

use super::{RecordingEnded, Tape, writer};

/// So many bytes may wait for the writer: of payload, and what a note takes beside that.
const MAX_QUEUED: usize = 64 << 20;
const NOTE: usize = 256;

/// A sheet with so many notes is handed over even if the queue of actions hasn't been found empty.
const MAX_NOTES: usize = 1024;

/// Something to be written.
pub(super) enum Note {
    Step(Instant, Input),
    /// An input of which there may be only one, as text: a receipt stands for a write once.
    Text(Instant, String),
    /// With the actions as text, if they are wanted.
    Polled(Polled, Option<String>),
}

/// Some notes, handed over together.
#[derive(Default)]
pub(super) struct Sheet {
    pub(super) notes: Vec<Note>,
    /// Bytes that they hold on to.
    pub(super) weight: usize,
}

/// Takes down what happens to one core.
pub(crate) struct Recorder {
    node: NodeId,
    /// Gone when the recording is over.
    queue: Option<Sender<Sheet>>,
    tape: Arc<Tape>,
    sheet: Sheet,
    /// Steps in this life.
    steps: u64,
    /// Something has happened since the queue of actions was found empty.
    dirty: bool,
    /// Actions since the last note of them.
    count: u64,
    digest: Digest,
    /// Those actions as text, if they are wanted.
    actions: Option<String>,
}

impl Recorder {
    pub(super) fn new(node: NodeId, queue: Sender<Sheet>, tape: Arc<Tape>, actions: bool) -> Self {
        Self {
            node,
            queue: Some(queue),
            tape,
            sheet: Sheet::default(),
            steps: 0,
            dirty: false,
            count: 0,
            digest: Digest::default(),
            actions: actions.then(String::new),
        }
    }

    /// The core is told something.
    pub(crate) fn step(&mut self, now: Instant, input: &Input) {
        // It is told in the middle of what it wants done: where exactly, matters.
        self.note_polled(true);
        self.steps += 1;
        self.dirty = true;
        self.sheet.weight += weight(input);
        self.sheet.notes.push(note(now, input));
    }

    /// The queue of actions was asked for the next one.
    pub(crate) fn polled(&mut self, action: Option<&Action>) {
        match action {
            Some(action) => {
                self.dirty = true;
                self.count += 1;
                self.digest.add(action);
                if let Some(text) = &mut self.actions {
                    if !text.is_empty() {
                        text.push(',');
                    }
                    text.push_str(&writer::text(action));
                }
            }
            // Asking again changes nothing.
            None if !self.dirty => {}
            None => {
                self.note_polled(false);
                self.dirty = false;
                self.hand_over();
            }
        }
        if self.sheet.notes.len() >= MAX_NOTES {
            self.hand_over();
        }
    }

    /// Nothing more is to be taken down.
    pub(crate) const fn is_over(&self) -> bool {
        self.queue.is_none()
    }

    /// Notes what has come out of the queue since the last note; `more`: nobody has found it empty yet.
    fn note_polled(&mut self, more: bool) {
        if more && self.count == 0 {
            return;
        }
        let actions = self.actions.as_mut().map(mem::take);
        self.sheet.weight += actions.as_ref().map_or(0, String::len);
        let polled = Polled {
            count: mem::take(&mut self.count),
            more,
            steps: self.steps,
            digest: self.digest.value(),
            actions: None,
        };
        self.sheet.notes.push(Note::Polled(polled, actions));
    }

    fn hand_over(&mut self) {
        let Some(queue) = &self.queue else { return };
        let mut sheet = mem::take(&mut self.sheet);
        sheet.weight += sheet.notes.len() * NOTE;
        let queued = self.tape.queued.fetch_add(sheet.weight, Relaxed);
        if queued > MAX_QUEUED {
            self.tape.end(self.node, RecordingEnded::Gap);
            self.queue = None;
        } else if queue.send(sheet).is_err() {
            // The writer has said why.
            self.queue = None;
        } else {
            self.tape.steps.store(self.steps, Relaxed);
        }
    }
}

/// The node has stopped, or its runtime drops it.
impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.sheet.notes.is_empty() || self.count > 0 {
            self.note_polled(true);
            self.hand_over();
        }
    }
}

/// Shares what is big in an input, and copies the rest.
fn note(now: Instant, input: &Input) -> Note {
    let copy = match input {
        Input::Persisted(_) => return Note::Text(now, writer::text(input)),
        Input::Tick => Input::Tick,
        Input::Receive { from, message } => Input::Receive { from: *from, message: message.clone() },
        Input::Propose(proposal) => Input::Propose(proposal.clone()),
        Input::Read { token, kind } => Input::Read { token: *token, kind: *kind },
        Input::CancelRead { token } => Input::CancelRead { token: *token },
        Input::ChangeMembership { token, change } => {
            Input::ChangeMembership { token: *token, change: change.clone() }
        }
        Input::TransferLeadership { token, to } => Input::TransferLeadership { token: *token, to: *to },
        Input::AbortTransfer => Input::AbortTransfer,
        Input::StepDown => Input::StepDown,
        Input::Campaign => Input::Campaign,
        Input::ForgetLeader => Input::ForgetLeader,
        Input::Compact { snapshot, keep } => Input::Compact { snapshot: *snapshot, keep: *keep },
        Input::SnapshotSent { id, arrived } => Input::SnapshotSent { id: *id, arrived: *arrived },
        Input::Unreachable { peer } => Input::Unreachable { peer: *peer },
        Input::Reachable { peer } => Input::Reachable { peer: *peer },
        Input::Loaded { id, result } => Input::Loaded { id: *id, result: result.clone() },
        Input::Applied { up_to } => Input::Applied { up_to: *up_to },
        Input::StorageFailed => Input::StorageFailed,
    };
    Note::Step(now, copy)
}

/// Bytes of payload that a note of it holds on to.
fn weight(input: &Input) -> usize {
    match input {
        Input::Propose(proposal) => proposal.batch.bytes(),
        Input::Receive { message, .. } => match &message.body {
            Body::Append { entries, .. } => entries.iter().map(Run::bytes).sum(),
            _ => 0,
        },
        Input::Loaded { result: Loaded::Entries(runs), .. } => runs.iter().map(Run::bytes).sum(),
        _ => 0,
    }
}
