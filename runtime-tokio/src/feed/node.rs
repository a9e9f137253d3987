//! The log of a node, for its feeds.

use std::sync::Weak;

use quorate_core::{Index, Load, LoadId, Loaded, StateMachine};
use tokio::sync::oneshot;

use super::recent::{FromLog, LoadLog};
use crate::{
    error::{StopReason, Stopped},
    host::{Asker, Question},
    shared::Shared,
    transport::BoxFuture,
};

/// Asks the host's read thread. It keeps neither the node nor its host alive, nor does a question to that thread.
pub(crate) struct NodeLog<S: StateMachine>(Weak<Shared<S>>);

impl<S: StateMachine> NodeLog<S> {
    pub(crate) const fn new(node: Weak<Shared<S>>) -> Self {
        Self(node)
    }

    /// Asks, and says where the answer will be.
    fn ask(&self, load: Load) -> Result<oneshot::Receiver<Loaded>, Stopped> {
        let node = self.0.upgrade().ok_or(GONE)?;
        let lanes = node.host.lanes().ok_or_else(|| node.why())?;
        let (answer, answered) = oneshot::channel();
        let question = Question { group: node.group, load, port: node.clone(), asker: Asker::Feed(answer) };
        lanes.loads.send(question).map_err(|_ended| node.why())?;
        Ok(answered)
    }
}

impl<S: StateMachine> LoadLog for NodeLog<S> {
    fn load(&self, first: Index, last: Index, max_bytes: usize) -> BoxFuture<Result<FromLog, Stopped>> {
        // The number is for a core; here the channel says whose answer it is.
        let asked = self.ask(Load { id: LoadId::default(), first, last, max_bytes });
        let node = self.0.clone();
        Box::pin(async move {
            let loaded = asked?.await;
            let node = node.upgrade().ok_or(GONE)?;
            match loaded {
                Ok(Loaded::Entries(entries)) => Ok(FromLog::Entries(entries)),
                Ok(Loaded::Compacted) => {
                    // Asked afterwards, so that what is gone by now lies before the base that is told.
                    let status = node.look().await?.raft;
                    Ok(FromLog::Compacted { base: status.base.index, snapshot: status.snapshot })
                }
                // The log could not be read, and the node was told so.
                Err(_dropped) => Err(node.why()),
            }
        })
    }
}

/// The node is no more. Why, it has said to its feeds.
const GONE: Stopped = Stopped { why: StopReason::Died };
