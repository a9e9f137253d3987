//! What waits to be sent to one peer, of one class: bounded in messages and bytes. What doesn't fit is dropped.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quorate_core::{Body, GroupId, Message};
use tokio::sync::Notify;

use crate::options::QueueLimit;

/// What is dropped from a full queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overflow {
    /// The oldest: of control messages, the newest says what is true now, and the others repeat an earlier state.
    Oldest,
    /// The newest: an append is of use only to a peer that has got those before it. What is dropped here is sent
    /// again once the peer says where its log ends.
    Newest,
}

/// Messages waiting; see the module.
#[derive(Debug)]
pub(crate) struct Queue {
    limit: QueueLimit,
    overflow: Overflow,
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Queued>,
    bytes: usize,
}

#[derive(Debug)]
struct Queued {
    since: Instant,
    group: GroupId,
    message: Message,
}

/// What a message is counted as beside its entries, so that a flood of empty ones has a size too.
const OVERHEAD: usize = 64;

impl Queue {
    pub(crate) fn new(limit: QueueLimit, overflow: Overflow) -> Self {
        Self { limit, overflow, waiting: Mutex::default(), ready: Notify::new() }
    }

    /// Adds a message; says how many were dropped. One that is longer than the whole limit is taken if nothing else
    /// waits, for it would never be sent otherwise.
    pub(crate) fn push(&self, group: GroupId, message: Message) -> u64 {
        let size = size(&message);
        let queued = Queued { since: Instant::now(), group, message };
        let mut dropped = 0;
        {
            let mut waiting = self.lock();
            while !waiting.messages.is_empty()
                && (waiting.messages.len() >= self.limit.messages
                    || waiting.bytes.saturating_add(size) > self.limit.bytes)
            {
                dropped += 1;
                match self.overflow {
                    Overflow::Newest => return dropped,
                    Overflow::Oldest => waiting.drop_front(),
                }
            }
            waiting.bytes = waiting.bytes.saturating_add(size);
            waiting.messages.push_back(queued);
        }
        self.ready.notify_one();
        dropped
    }

    /// Waits for messages and moves up to `bytes` of them, at least one, to the end of `batch`.
    pub(crate) async fn take(&self, bytes: usize, batch: &mut Vec<(GroupId, Message)>) {
        loop {
            if self.try_take(bytes, batch) {
                return;
            }
            // A message that comes between the look and the wait leaves a permit behind.
            self.ready.notified().await;
        }
    }

    /// Drops what has waited for longer than `age`; says how many.
    pub(crate) fn drop_older(&self, age: Duration) -> u64 {
        let mut waiting = self.lock();
        let mut dropped = 0;
        while waiting.messages.front().is_some_and(|queued| queued.since.elapsed() > age) {
            waiting.drop_front();
            dropped += 1;
        }
        dropped
    }

    /// How many messages and bytes wait.
    pub(crate) fn len(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.messages.len(), waiting.bytes)
    }

    fn try_take(&self, bytes: usize, batch: &mut Vec<(GroupId, Message)>) -> bool {
        let mut waiting = self.lock();
        let mut taken = 0_usize;
        let before = batch.len();
        while let Some(queued) = waiting.messages.front() {
            let size = size(&queued.message);
            if taken.saturating_add(size) > bytes && taken > 0 {
                break;
            }
            taken = taken.saturating_add(size);
            batch.extend(waiting.pop_front().map(|queued| (queued.group, queued.message)));
        }
        batch.len() > before
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock; if it did, the queue would still be a queue.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn pop_front(&mut self) -> Option<Queued> {
        let queued = self.messages.pop_front()?;
        self.bytes = self.bytes.saturating_sub(size(&queued.message));
        Some(queued)
    }

    fn drop_front(&mut self) {
        drop(self.pop_front());
    }
}

fn size(message: &Message) -> usize {
    let entries = match &message.body {
        Body::Append { entries, .. } => entries.iter().map(quorate_core::Run::bytes).sum(),
        _ => 0,
    };
    OVERHEAD.saturating_add(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{Index, LogId, Run, Term};

    fn heartbeat(round: u64) -> Message {
        Message { term: Term(1), body: Body::Heartbeat { commit: Index(0), round, quiesce: false } }
    }

    fn append(first: u64, payload: usize) -> Message {
        let run = Run::commands(Term(1), Index(first), &[vec![0; payload]]).unwrap();
        let prev = LogId::new(Term(u64::from(first > 1)), Index(first - 1));
        Message { term: Term(1), body: Body::Append { prev, commit: Index(0), entries: vec![run].into() } }
    }

    fn all(queue: &Queue) -> Vec<Message> {
        let mut batch = Vec::new();
        while queue.try_take(1 << 20, &mut batch) {}
        batch.into_iter().map(|(_, message)| message).collect()
    }

    #[test]
    fn a_full_queue_of_control_messages_keeps_the_newest() {
        let queue = Queue::new(QueueLimit { messages: 3, bytes: 1 << 20 }, Overflow::Oldest);
        let dropped: u64 = (0..10).map(|round| queue.push(GroupId(1), heartbeat(round))).sum();
        assert_eq!(dropped, 7);
        assert_eq!(all(&queue), [heartbeat(7), heartbeat(8), heartbeat(9)]);
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn a_full_queue_of_appends_keeps_the_oldest() {
        let queue = Queue::new(QueueLimit { messages: 100, bytes: 3000 }, Overflow::Newest);
        let dropped: u64 = (1..=5).map(|first| queue.push(GroupId(1), append(first, 1000))).sum();
        assert_eq!(dropped, 3);
        assert!(queue.len().1 <= 3000);
        assert_eq!(all(&queue), [append(1, 1000), append(2, 1000)]);
    }

    #[test]
    fn one_message_longer_than_the_limit_goes_alone() {
        let queue = Queue::new(QueueLimit { messages: 100, bytes: 3000 }, Overflow::Newest);
        assert_eq!(queue.push(GroupId(1), append(1, 50_000)), 0);
        assert_eq!(queue.push(GroupId(1), append(2, 1)), 1);
        assert_eq!(all(&queue), [append(1, 50_000)]);
    }

    #[test]
    fn a_batch_ends_at_its_size() {
        let queue = Queue::new(QueueLimit { messages: 100, bytes: 1 << 20 }, Overflow::Newest);
        for first in 1..=4 {
            queue.push(GroupId(1), append(first, 1000));
        }
        let mut batch = Vec::new();
        assert!(queue.try_take(2500, &mut batch));
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn what_has_waited_too_long_goes() {
        let queue = Queue::new(QueueLimit { messages: 100, bytes: 1 << 20 }, Overflow::Oldest);
        queue.push(GroupId(1), heartbeat(1));
        assert_eq!(queue.drop_older(Duration::from_secs(3600)), 0);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(queue.drop_older(Duration::from_millis(1)), 1);
        assert_eq!(queue.len(), (0, 0));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let queue = std::sync::Arc::new(Queue::new(QueueLimit { messages: 9, bytes: 999 }, Overflow::Oldest));
        let other = queue.clone();
        let waiting = tokio::spawn(async move {
            let mut batch = Vec::new();
            other.take(100, &mut batch).await;
            batch
        });
        tokio::task::yield_now().await;
        queue.push(GroupId(4), heartbeat(1));
        assert_eq!(waiting.await.unwrap(), [(GroupId(4), heartbeat(1))]);
    }
}
