//! What is under way between nodes whose recordings are here, and who looks on.

use std::collections::BTreeMap;

use quorate_core::{Message, NodeId, recording::Digest};

use crate::{
    Trace,
    violation::Verdict,
    watch::{Seen, Watch},
};

/// Messages by what they are: a recording has no names for them, and a network may double them.
#[derive(Debug)]
pub(super) struct Wire {
    /// Those that have left, and their numbers.
    left: BTreeMap<u64, u64>,
    numbers: u64,
    watchers: Vec<Box<dyn Watch>>,
    pub(super) trace: Trace,
    /// Messages that came from a recording that is here, or from elsewhere.
    pub(super) matched: u64,
    pub(super) unseen: u64,
}

impl Wire {
    pub(super) fn new(trace: Trace, watchers: Vec<Box<dyn Watch>>) -> Self {
        Self { left: BTreeMap::new(), numbers: 0, watchers, trace, matched: 0, unseen: 0 }
    }

    /// Has it left?
    pub(super) fn has_left(&self, from: NodeId, to: u64, message: &Message) -> bool {
        self.left.contains_key(&key(from.0, to, message))
    }

    pub(super) fn sent(&mut self, at: u64, from: u64, to: NodeId, message: &Message) -> Verdict {
        self.numbers += 1;
        let id = self.numbers;
        self.left.insert(key(from, to.0, message), id);
        self.tell_sent(at, id, from, to.0, message)
    }

    /// It arrives: which number has it? One that wasn't seen to leave is taken to leave now.
    pub(super) fn received(
        &mut self,
        at: u64,
        from: NodeId,
        to: u64,
        message: &Message,
    ) -> Result<u64, crate::violation::Broken> {
        if let Some(id) = self.left.get(&key(from.0, to, message)) {
            self.matched += 1;
            return Ok(*id);
        }
        self.unseen += 1;
        self.numbers += 1;
        let id = self.numbers;
        self.tell_sent(at, id, from.0, to, message)?;
        Ok(id)
    }

    fn tell_sent(&mut self, at: u64, id: u64, from: u64, to: u64, message: &Message) -> Verdict {
        let slot = |node: u64| usize::try_from(node.saturating_sub(1)).unwrap_or(usize::MAX);
        self.see(at, &Seen::Sent { id, from: slot(from), to: slot(to), message })
    }

    pub(super) fn see(&mut self, at: u64, seen: &Seen<'_>) -> Verdict {
        self.watchers.iter_mut().try_for_each(|watcher| watcher.see(at, seen))
    }
}

fn key(from: u64, to: u64, message: &Message) -> u64 {
    let mut digest = Digest::default();
    digest.add(&(from, to));
    digest.message(message);
    digest.value()
}
