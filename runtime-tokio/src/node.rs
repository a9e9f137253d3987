//! The handle: what a program does with its node.

use std::{fmt, sync::Arc};

use quorate_core::{
    ChangeOp, Frozen, GroupId, Index, LogId, MembershipChange, NodeId, Outcome, Snapshot, StateMachine,
};
use tokio::sync::watch;

use crate::{
    builder::Builder,
    compare::Divergence,
    consistency::Consistency,
    control::Wish,
    error::{ControlError, FreezeError, ProposeError, ReadError, SnapshotError, StopReason, Stopped},
    feed::Feed,
    shared::Shared,
    snapshots::{SnapshotCounts, SnapshotProgress},
    status::{Leadership, NodeStatus, Progress},
};

/// A running node of one group: a handle, cheap to clone. When the last one is dropped the node stops.
///
/// Every call may be given up by dropping its future. What it was to change may happen all the same: a proposal, another
/// membership or leader, a campaign, a snapshot, a shutdown. Else nothing is left behind.
pub struct Node<S: StateMachine> {
    handle: Arc<Handle<S>>,
}

impl<S: StateMachine> Node<S> {
    /// Begins to set up node `id`.
    pub fn builder(id: NodeId) -> Builder<S> {
        Builder::new(id)
    }

    /// Has the cluster apply `command`, and returns what the state machine replied to it.
    ///
    /// On any node: a follower hands it on to the leader. What certainly did not happen is tried again, while there is
    /// time ([`Builder::request_timeout`]): no leader yet, or it has moved. What may have happened never is.
    ///
    /// # Errors
    /// As [`ProposeError`] says; [`ProposeError::Unknown`] if it may have been applied, or may yet be.
    pub async fn propose(&self, command: impl Into<S::Command>) -> Result<S::Reply, ProposeError> {
        self.shared().propose(command.into().into()).await
    }

    /// Runs `read` on the state machine once that reflects everything acknowledged before this call, by any node:
    /// a linearizable read (dissertation 6.4). On any node; nothing is written to any log.
    ///
    /// The closure runs on the apply thread, between two entries: while it runs nothing is applied, so it should copy
    /// out what it needs and return.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub async fn read<F, R>(&self, read: F) -> Result<R, ReadError>
    where
        F: FnOnce(&S) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.read_with(Consistency::Linearizable, read).await
    }

    /// Runs `read` on the state machine as it is on this node, which may lag behind by any amount.
    ///
    /// # Errors
    /// As [`ReadError`] says; never for want of a leader, but [`ReadError::Behind`] if the state machine has too much to do.
    pub async fn read_stale<F, R>(&self, read: F) -> Result<R, ReadError>
    where
        F: FnOnce(&S) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.read_with(Consistency::Stale, read).await
    }

    /// Runs `read` on the state machine once that is as fresh as `consistency` says; else as [`Node::read`].
    ///
    /// # Errors
    /// As [`ReadError`] says. One that waits for an index may end as [`ReadError::NoLeader`] as well, if too little came
    /// from the leader in time.
    pub async fn read_with<F, R>(&self, consistency: Consistency, read: F) -> Result<R, ReadError>
    where
        F: FnOnce(&S) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.shared().read(|machine: &S, _: &Snapshot| read(machine), consistency).await
    }

    /// The state with everything in it that was acknowledged before this call, by any node, held still to be written out
    /// elsewhere; and where in the log that is, with the membership in force there. On any node.
    ///
    /// [`StateMachine::freeze`] runs on the apply thread, between two entries; [`Frozen::write`] wherever the caller
    /// likes, but not on a worker of the runtime if it takes long.
    ///
    /// # Errors
    /// As [`FreezeError`] says.
    pub async fn freeze(&self) -> Result<(Snapshot, Box<dyn Frozen>), FreezeError> {
        let freeze = |machine: &S, at: &Snapshot| machine.freeze().map(|frozen| (at.clone(), frozen));
        let frozen = self.shared().read(freeze, Consistency::Linearizable).await?;
        frozen.ok_or(FreezeError::Unsupported)
    }

    /// Takes a snapshot now, of all that is applied here, and returns where it is once it is durable. The log is cut to it
    /// then, as the policy says ([`Builder::snapshots`]). If nothing was applied since the last one it returns that. On any
    /// node; a process takes one at a time, so it may have to wait for those of other groups.
    ///
    /// # Errors
    /// As [`SnapshotError`] says. Giving the call up doesn't stop it.
    pub async fn snapshot(&self) -> Result<LogId, SnapshotError> {
        self.shared().snapshot().await
    }

    /// The snapshots of this group that are being taken, sent and received; the oldest first.
    #[must_use]
    pub fn snapshot_progress(&self) -> Vec<SnapshotProgress> {
        let mut progress = self.shared().host.desk.board.progress();
        progress.retain(|entry| entry.group == self.group());
        progress
    }

    /// What has become of snapshots since the host was started: of all the groups that it has.
    #[must_use]
    pub fn snapshot_counts(&self) -> SnapshotCounts {
        self.shared().host.desk.board.counts()
    }

    /// Changes who is a member, in one step, and returns where in the log the final membership is (or the joint one, if it
    /// is to be left on request) once it is committed. Only on the leader.
    ///
    /// # Errors
    /// As [`ControlError`] says. Giving the call up, or its timeout ([`Builder::request_timeout`]), doesn't take the change
    /// back.
    pub async fn change_membership(&self, change: MembershipChange) -> Result<Index, ControlError> {
        match self.shared().control(Wish::Change(change)).await? {
            Some(Outcome::Changed { index }) => Ok(index),
            other => Err(unexpected(other)),
        }
    }

    /// Adds a node that gets the log but has no vote (dissertation 4.2.1), and returns where in the log that is. Only on the
    /// leader. It is given a vote by [`Node::change_membership`], with [`ChangeOp::Promote`](quorate_core::ChangeOp) once it has
    /// caught up; one that is to be given it by itself is added with [`ChangeOp::Join`](quorate_core::ChangeOp).
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn add_learner(&self, id: NodeId) -> Result<Index, ControlError> {
        self.change_membership(MembershipChange::new(vec![ChangeOp::AddLearner(id)])).await
    }

    /// Hands leadership over to `to`, or to the voter that has most of the log; returns who leads then. Only on the leader,
    /// which refuses proposals meanwhile; they are tried again. After an election timeout it is given up.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, ControlError> {
        match self.shared().control(Wish::Transfer(to)).await? {
            Some(Outcome::Transferred { to }) => Ok(to),
            other => Err(unexpected(other)),
        }
    }

    /// Campaigns now, instead of when the leader has been silent. It forces nothing: as long as the others hear a leader
    /// they refuse. Returns once the campaign has begun; [`Node::leadership`] says what comes of it.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    pub async fn campaign(&self) -> Result<(), ControlError> {
        self.shared().control(Wish::Campaign).await.map(drop)
    }

    /// What the node knows and does.
    ///
    /// # Errors
    /// If it has stopped.
    pub async fn status(&self) -> Result<NodeStatus, Stopped> {
        let shared = self.shared();
        let raft = shared.look().await?.raft;
        Ok(NodeStatus { raft, counts: shared.counters.look() })
    }

    /// Who leads, and how that changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared().leadership.subscribe()
    }

    /// The replicas that were found to differ from this one since it started, one entry for each at most, and how that changes:
    /// [`Builder::compare_state_every`] looks for them. What to do about it is for the program, or whoever runs it, to say; the
    /// node goes on.
    #[must_use]
    pub fn divergences(&self) -> watch::Receiver<Vec<Divergence>> {
        self.shared().divergences.subscribe()
    }

    /// How far the node has come, and how that changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared().progress.subscribe()
    }

    /// The entries of the log from `from` on, in order, each once, as this node applies them: for whoever keeps something beside
    /// the state machine up to date. On any node. Whoever keeps up is told from memory ([`Builder::feed_bytes`]), and who lags
    /// is told what the log still has; nobody waits for a feed. Of what a snapshot has taken the place of, only that is told.
    ///
    /// ```
    /// # use quorate_core::{EntryKind, Index, StateMachine};
    /// # use quorate_runtime_tokio::{FeedError, FeedItem, Node};
    /// # async fn example<S: StateMachine>(node: Node<S>) -> Result<(), FeedError> {
    /// let mut feed = node.subscribe(Index(1));
    /// loop {
    ///     match feed.next().await? {
    ///         FeedItem::Entries(entries) => {
    ///             for command in entries.iter().filter(|entry| entry.kind == EntryKind::Command) {
    ///                 println!("{}: {:?}", command.id, command.payload);
    ///             }
    ///         }
    ///         FeedItem::Gap { to, .. } => println!("up to {to} only the state machine knows"),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// It ends with the node, and doesn't keep it alive.
    #[must_use]
    pub fn subscribe(&self, from: Index) -> Feed {
        self.shared().subscribe(from)
    }

    /// Waits until `enough` is true of the node's progress, and returns that. It has no deadline of its own.
    ///
    /// ```
    /// # use quorate_core::StateMachine;
    /// # use quorate_runtime_tokio::{Node, Stopped};
    /// # async fn example<S: StateMachine>(node: Node<S>) -> Result<(), Stopped> {
    /// node.until(|now| now.applied.0 >= 10).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the node has stopped, and it is not true of what it had come to.
    pub async fn until(&self, mut enough: impl FnMut(&Progress) -> bool) -> Result<Progress, Stopped> {
        let (mut progress, mut stopped) = (self.progress(), self.shared().stopped.subscribe());
        loop {
            let now = *progress.borrow_and_update();
            if enough(&now) {
                return Ok(now);
            }
            if let Some(stopped) = &*stopped.borrow_and_update() {
                return Err(stopped.clone());
            }
            tokio::select! {
                biased;
                Ok(()) = progress.changed() => {}
                Ok(()) = stopped.changed() => {}
                else => return Err(self.shared().why()),
            }
        }
    }

    /// Waits until this node knows a leader, and returns who that is.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn until_led(&self) -> Result<NodeId, Stopped> {
        let led = self.until(|now| now.leadership.leader.is_some()).await?;
        led.leadership.leader.ok_or_else(|| self.shared().why())
    }

    /// Waits until this node knows that `id` leads.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn until_led_by(&self, id: NodeId) -> Result<(), Stopped> {
        self.until(|now| now.leadership.leader == Some(id)).await.map(drop)
    }

    /// Waits until this node has applied everything up to `index`.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn until_applied(&self, index: Index) -> Result<(), Stopped> {
        self.until(|now| now.applied >= index).await.map(drop)
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared().id()
    }

    /// In which group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.shared().group
    }

    /// How its recording is: nothing if it is none of [`Builder::record`]'s.
    #[cfg(feature = "record")]
    #[must_use]
    pub fn recording(&self) -> Option<crate::RecordingStatus> {
        self.shared().tape.get().map(|tape| tape.status())
    }

    /// Copies the ring of its recording, with all that has happened so far, into a directory that isn't there yet, while the
    /// node goes on.
    ///
    /// # Errors
    /// As [`DumpError`](crate::DumpError) says.
    #[cfg(feature = "record")]
    pub async fn dump_recording(
        &self,
        dir: impl Into<std::path::PathBuf>,
    ) -> Result<crate::RecordingDump, crate::DumpError> {
        let tape = self.shared().tape.get().ok_or(crate::DumpError::NotRecorded)?;
        tape.dump(dir.into()).await
    }

    /// Stops the node: takes no more requests, lets those under way end, hands leadership over if it leads and another voter
    /// is in touch (both within [`Builder::shutdown_timeout`], from the first call on), writes what is queued. When it returns
    /// nothing runs for the node any more, and its state machine is dropped. Store and transport are the host's: of a node that
    /// has one of its own ([`Node::builder`]) the threads have ended then, the store is dropped, and the transport shut down; those
    /// of a [`Host`](crate::Host) go on. A call of the state machine or the store that doesn't return holds it up.
    pub async fn shutdown(&self) {
        self.shared().stop_and_wait().await;
    }

    /// Waits until the node has stopped, for whatever reason, and says why.
    pub async fn stopped(&self) -> Stopped {
        let shared = self.shared();
        let mut stopped = shared.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await.map(|stopped| (*stopped).clone()) {
            Ok(Some(stopped)) => stopped,
            Ok(None) | Err(_) => shared.why(),
        }
    }

    pub(crate) fn new(shared: Arc<Shared<S>>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    fn shared(&self) -> &Arc<Shared<S>> {
        &self.handle.shared
    }
}

impl<S: StateMachine> Clone for Node<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<S: StateMachine> fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared();
        f.debug_struct("Node")
            .field("id", &shared.id())
            .field("group", &shared.group)
            .field("leadership", &*shared.leadership.borrow())
            .field("stopped", &*shared.stopped.borrow())
            .finish_non_exhaustive()
    }
}

/// The core gives each request the outcome that belongs to it.
fn unexpected(outcome: Option<Outcome>) -> ControlError {
    ControlError::Unknown { why: format!("the core answered it as something else: {outcome:?}") }
}

/// What all clones of a handle share; its end is the node's.
struct Handle<S: StateMachine> {
    shared: Arc<Shared<S>>,
}

impl<S: StateMachine> Drop for Handle<S> {
    fn drop(&mut self) {
        self.shared.inbox.stop(StopReason::Dropped);
    }
}
