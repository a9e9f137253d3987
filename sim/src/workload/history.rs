//! What clients did and heard.

use bytes::Bytes;

/// An operation of a client, from beginning to end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completed {
    /// Whose.
    pub client: usize,
    /// The command or the query, as the workload drew it.
    pub op: Bytes,
    /// A command; else a query.
    pub write: bool,
    /// When it began, in µs.
    pub invoked: u64,
    /// When its answer came; never, if it isn't known what has become of it.
    pub returned: Option<u64>,
    /// Where in the log it took effect: a command's entry, or for a query the last entry that its answer rests on. `None` if
    /// the run has ended without.
    pub index: Option<u64>,
    /// The machine's reply.
    pub reply: Option<Bytes>,
}

/// Operations as they begin and end.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<Completed>);

impl History {
    /// An operation begins; its number is the answer.
    pub fn invoke(&mut self, client: usize, op: Bytes, write: bool, now: u64) -> usize {
        let index = None;
        self.0.push(Completed { client, op, write, invoked: now, returned: None, index, reply: None });
        self.0.len() - 1
    }

    /// It has taken effect there. Only the first time counts: a retry takes none.
    pub fn effect(&mut self, op: usize, at: u64) {
        if let Some(op) = self.0.get_mut(op) {
            op.index.get_or_insert(at);
        }
    }

    /// Its answer has come. Only the first counts.
    pub fn returned(&mut self, op: usize, reply: Bytes, now: u64) {
        if let Some(op) = self.0.get_mut(op).filter(|op| op.returned.is_none()) {
            op.returned = Some(now);
            op.reply = Some(reply);
        }
    }

    /// All operations, in the order in which they began.
    #[must_use]
    pub fn completed(&self) -> &[Completed] {
        &self.0
    }
}
