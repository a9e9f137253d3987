//! A [`Comparison`] at work: hashes come from the apply lane, reports go over the transport and come from there, and what is
//! found is told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{GroupId, Index, NodeId};
use tokio::{sync::watch, time::timeout};
use tracing::{error, warn};

use super::{Comparison, Divergence, Origin, Report, Stride, accepted};
use crate::{
    error::Refusal,
    forward, host,
    metrics::Meter,
    transport::{BoxFuture, ForwardError},
};

/// How long a report may be under way. Whatever became of it, the next one says the same and more.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Compares one replica with the others of its group.
pub(crate) struct Online {
    group: GroupId,
    stride: Stride,
    host: Arc<host::Shared>,
    meter: Arc<Meter>,
    /// All that were found.
    found: watch::Sender<Vec<Divergence>>,
    state: Mutex<State>,
}

struct State {
    comparison: Comparison,
    others: Vec<NodeId>,
    /// Those that a report is under way to: one at a time.
    busy: BTreeSet<NodeId>,
    /// Those of them that have not been told the newest.
    behind: BTreeSet<NodeId>,
    stopped: bool,
}

impl Online {
    /// For the replica of `group` at `host`, whose state comes from `origin`.
    pub(crate) fn new(
        group: GroupId,
        stride: Stride,
        origin: Origin,
        members: Vec<NodeId>,
        host: Arc<host::Shared>,
        meter: Arc<Meter>,
        found: watch::Sender<Vec<Divergence>>,
    ) -> Arc<Self> {
        let comparison = Comparison::new(host.id, origin, members.iter().copied());
        let others = others(host.id, members);
        let (busy, behind) = (BTreeSet::new(), BTreeSet::new());
        let state = Mutex::new(State { comparison, others, busy, behind, stopped: false });
        Arc::new(Self { group, stride, host, meter, found, state })
    }

    /// Is the state to be hashed after this entry?
    pub(crate) fn is_due(&self, applied: Index) -> bool {
        self.stride.next(applied) == applied
    }

    /// The state here hashes to `hash` after the entry at `index`: compares it and tells all the others. Waits for nobody.
    pub(crate) fn own(self: &Arc<Self>, index: Index, hash: u64) {
        let mut state = self.lock();
        let found = state.comparison.own(index, hash);
        let idle = state.due_news();
        self.alarm(state, &found);
        if self.host.transport.is_some() {
            for to in idle {
                drop(self.host.runtime.spawn(send(Arc::downgrade(self), to)));
            }
        }
    }

    /// These are the members now.
    pub(crate) fn members(&self, members: Vec<NodeId>) {
        let mut state = self.lock();
        state.comparison.members(members.iter().copied());
        state.others = others(self.host.id, members);
    }

    /// A snapshot at `to` has taken the place of the state.
    pub(crate) fn restored(&self, to: Index, members: Vec<NodeId>) {
        let mut state = self.lock();
        state.comparison.restored(to);
        drop(state);
        self.members(members);
    }

    /// Nothing is told any more.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
    }

    /// Takes a [report](Report::is_one) of another node, and answers it.
    pub(crate) fn take(&self, from: NodeId, request: &[u8]) -> Bytes {
        match Report::decode(request) {
            Ok(report) => {
                let mut state = self.lock();
                let found = state.comparison.report(from, &report);
                self.alarm(state, found.as_slice());
                accepted()
            }
            Err(error) => {
                let (node, group) = (self.host.id, self.group);
                warn!(%node, %group, %from, %error, "report refused");
                let why = format!("node {node} can't read the report: {error}");
                forward::encode_answer(Err(Refusal::Other(why)))
            }
        }
    }

    /// Tells what was found; and what is known by now of what was found before.
    fn alarm(&self, state: MutexGuard<'_, State>, found: &[Divergence]) {
        // Before it is told: who hears of it finds it counted.
        found.iter().for_each(|_| self.meter.diverged());
        let all = state.comparison.divergences();
        if !all.is_empty() {
            self.found.send_if_modified(|told| {
                let news = told != all;
                if news {
                    all.clone_into(told);
                }
                news
            });
        }
        drop(state);
        for divergence in found {
            let Divergence { node: other, last_equal, first_different, ours, theirs, minority } = divergence;
            error!(
                node = %self.host.id, group = %self.group, %other, %last_equal, %first_different,
                ours = format_args!("{ours:016x}"), theirs = format_args!("{theirs:016x}"), ?minority,
                "the state differs from another replica's"
            );
        }
    }

    /// The newest report for `to`, on its way; `None`: it has it.
    fn next(&self, to: NodeId) -> Option<BoxFuture<Result<Bytes, ForwardError>>> {
        let mut state = self.lock();
        let transport = self.host.transport.as_ref().filter(|_| !state.stopped);
        if let Some(transport) = transport
            && state.behind.remove(&to)
        {
            let report = state.comparison.to_send().encode();
            drop(state);
            return Some(transport.forward(self.group, to, report));
        }
        state.busy.remove(&to);
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// All the others are to be told the newest. Returns those whom nobody is just telling something.
    fn due_news(&mut self) -> Vec<NodeId> {
        let Self { others, busy, behind, stopped, .. } = self;
        if *stopped {
            return Vec::new();
        }
        behind.clone_from(&others.iter().copied().collect());
        others.iter().copied().filter(|other| busy.insert(*other)).collect()
    }
}

/// Tells one of them the newest until it has it. Holds nothing while it waits.
async fn send(online: Weak<Online>, to: NodeId) {
    while let Some(sending) = online.upgrade().and_then(|online| online.next(to)) {
        let _whatever_became_of_it = timeout(SEND_TIMEOUT, sending).await;
    }
}

fn others(me: NodeId, mut members: Vec<NodeId>) -> Vec<NodeId> {
    members.retain(|id| *id != me);
    members
}
