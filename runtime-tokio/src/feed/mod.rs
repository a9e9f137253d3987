//! A feed of what is committed: [`Feed`], and where it comes from.
//!
//! The apply lane [pushes](Recent::push) what it has applied into a ring that is bounded in bytes and holds references to
//! the runs of the log, not copies. Each [`Feed`] has a position of its own: as long as that is in the ring it reads there;
//! behind it, it asks for the log ([`LoadLog`]); and where the log has been compacted it says so and goes on after the gap.
//! Nobody waits for a feed: a slow one only falls back to the log, and then maybe over a gap.

mod node;
mod recent;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::{Stream, stream::FusedStream};
use quorate_core::{Entry, Few, Index, LogId, Run};
use tokio::sync::watch;

pub(crate) use node::NodeLog;
#[cfg(test)]
use recent::LoadLog;
pub(crate) use recent::{FromLog, Recent};

use crate::{error::Stopped, transport::BoxFuture};
use recent::{Place, Progress};

/// How many bytes of entries one [`FeedItem`] holds at most, unless it is of one entry.
pub const DEFAULT_BATCH_BYTES: usize = 256 << 10;

/// What a [`Feed`] tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedItem {
    /// The next entries, all kinds of them: applied on this node, and so committed.
    Entries(FeedEntries),
    /// Entries that the log of this node does not hold any more: the feed goes on after them. Whoever needs what they led to
    /// reads the state machine, or its snapshot.
    Gap {
        /// The first that is missing.
        from: Index,
        /// The last that is missing.
        to: Index,
        /// This node has a snapshot of the state there, or later.
        snapshot: LogId,
    },
}

/// Consecutive entries: at least one. They share the log's own blocks: cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedEntries(Few<Run>);

/// Why a feed has ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeedError {
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The log gave other entries than those asked for, which would be a bug of its store.
    #[error("the log gave no entry at {wanted}, which was applied (it gave {found:?})")]
    Missing {
        /// The entry that comes next.
        wanted: Index,
        /// Where what came instead begins.
        found: Option<Index>,
    },
}

/// The entries that this node applies, from some index on, in order, each once: see
/// [`Node::subscribe`](crate::Node::subscribe).
///
/// It is also a [`Stream`], which ends after an error.
pub struct Feed {
    recent: Arc<Recent>,
    /// What comes next.
    next: Index,
    max_bytes: usize,
    state: State,
}

enum State {
    /// To look at the ring.
    Looking(watch::Receiver<Progress>),
    /// Everything there is has been told.
    Waiting(BoxFuture<watch::Receiver<Progress>>),
    /// The log was asked.
    Loading(watch::Receiver<Progress>, BoxFuture<Result<FromLog, Stopped>>),
    Ended(FeedError),
}

impl Feed {
    /// From `from` on. Entries before the first are none: 0 is the same as 1.
    pub(crate) fn new(recent: Arc<Recent>, from: Index) -> Self {
        let state = State::Looking(recent.watch());
        Self { recent, next: from.max(Index(1)), max_bytes: DEFAULT_BATCH_BYTES, state }
    }

    /// So many bytes of entries are told at once, at most, but one entry at least. Default 256 KiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What comes next: the first entry that has not been told, or whose gap has not.
    #[must_use]
    pub const fn position(&self) -> Index {
        self.next
    }

    /// The next entries, or a gap, as soon as there is something. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// When the feed has ended, as [`FeedError`] says; then always.
    pub async fn next(&mut self) -> Result<FeedItem, FeedError> {
        poll_fn(|context| self.poll_item(context)).await
    }

    /// All that is under way is in `self.state`, and a position is passed when its entries are returned.
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Result<FeedItem, FeedError>> {
        loop {
            match &mut self.state {
                State::Ended(error) => return Poll::Ready(Err(error.clone())),
                State::Waiting(changed) => {
                    let progress = ready!(changed.as_mut().poll(context));
                    self.state = State::Looking(progress);
                }
                State::Loading(progress, load) => {
                    let loaded = ready!(load.as_mut().poll(context));
                    // Whoever could not be asked may not know why the node has stopped.
                    let loaded =
                        loaded.map_err(|stopped| progress.borrow().stopped.clone().unwrap_or(stopped));
                    self.state = State::Looking(progress.clone());
                    let item = match loaded {
                        Ok(FromLog::Entries(runs)) => self.loaded(runs),
                        Ok(FromLog::Compacted { base, snapshot }) => self.gap(base, snapshot),
                        Err(stopped) => Err(stopped.into()),
                    };
                    match item {
                        Ok(item) => return Poll::Ready(Ok(item)),
                        Err(error) => self.state = State::Ended(error),
                    }
                }
                State::Looking(progress) => {
                    // Seen before the ring is looked at: what changes from here on wakes.
                    let stopped = progress.borrow_and_update().stopped.clone();
                    let mut progress = progress.clone();
                    self.state = match (self.recent.at(self.next, self.max_bytes), stopped) {
                        (Place::Here(runs), _) => return Poll::Ready(Ok(self.tell(runs))),
                        // What has stopped has no log either.
                        (Place::InLog { .. } | Place::Ahead, Some(stopped)) => State::Ended(stopped.into()),
                        (Place::InLog { last }, None) => {
                            let load = self.recent.load(self.next, last, self.max_bytes);
                            State::Loading(progress, load)
                        }
                        (Place::Ahead, None) => State::Waiting(Box::pin(async move {
                            // The sender is in `self.recent`, and lives as long as this.
                            let _changed = progress.changed().await;
                            progress
                        })),
                    };
                }
            }
        }
    }

    fn tell(&mut self, runs: Few<Run>) -> FeedItem {
        self.next = runs.last().map_or(self.next, |run| run.last().next());
        FeedItem::Entries(FeedEntries(runs))
    }

    fn loaded(&mut self, runs: Few<Run>) -> Result<FeedItem, FeedError> {
        let mut wanted = self.next;
        for run in &runs {
            if run.first() != wanted {
                return Err(FeedError::Missing { wanted, found: Some(run.first()) });
            }
            wanted = run.last().next();
        }
        if runs.is_empty() {
            return Err(FeedError::Missing { wanted, found: None });
        }
        Ok(self.tell(runs))
    }

    /// Everything up to `base` is gone.
    fn gap(&mut self, base: Index, snapshot: LogId) -> Result<FeedItem, FeedError> {
        let from = self.next;
        if base < from {
            return Err(FeedError::Missing { wanted: from, found: None });
        }
        self.next = base.next();
        Ok(FeedItem::Gap { from, to: base, snapshot })
    }
}

impl Stream for Feed {
    type Item = Result<FeedItem, FeedError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let feed = self.get_mut();
        if feed.is_terminated() {
            return Poll::Ready(None);
        }
        feed.poll_item(context).map(Some)
    }
}

impl FusedStream for Feed {
    /// Has the error been told?
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("next", &self.next)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl FeedEntries {
    /// Each entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.0.iter().flat_map(Run::entries)
    }

    /// The same in runs, of which each is of one term and one block.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        self.0.as_slice()
    }

    /// The index of the first.
    #[must_use]
    pub fn first(&self) -> Index {
        self.0.first().map_or(Index(0), Run::first)
    }

    /// The index of the last.
    #[must_use]
    pub fn last(&self) -> Index {
        self.0.last().map_or(Index(0), Run::last)
    }

    /// How many bytes they have in the log.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Run::bytes).sum()
    }
}

impl IntoIterator for FeedEntries {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}
