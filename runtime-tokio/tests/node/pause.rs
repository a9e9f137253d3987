//! A process that is paused: stopped by a signal, suspended with its machine, or starved.

use std::{
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{Body, GroupId, Index, Membership, Message, NodeId, Term};
use quorate_runtime_tokio::{BoxFuture, ForwardError, Inbound, MemoryStore, Node, Transport};
use tokio::time::sleep;

use crate::support::{GROUP, Words, until};

const ELECTION: Duration = Duration::from_millis(300);

/// Nobody is there but the test, which writes down what it hears and speaks as node 1.
#[derive(Default)]
pub(crate) struct Test {
    pub(crate) heard: Mutex<Vec<Message>>,
    pub(crate) node: OnceLock<Arc<dyn Inbound>>,
}

impl Test {
    fn heartbeat(&self, round: u64) {
        self.say(Body::Heartbeat { commit: Index(0), round, quiesce: false });
    }

    pub(crate) fn say(&self, body: Body) {
        self.node.get().unwrap().receive(GROUP, NodeId(1), Message { term: Term(1), body });
    }

    fn answered(&self, round: u64) -> Option<()> {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .any(|message| message.body == Body::HeartbeatReply { round, asleep: false })
            .then_some(())
    }
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Test")
    }
}

impl Transport for Test {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        assert!(self.node.set(inbound).is_ok());
    }

    fn send(&self, _: GroupId, _: NodeId, message: Message) {
        self.heard.lock().unwrap().push(message);
    }

    fn forward(&self, _: GroupId, to: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move { Err(ForwardError::NotDelivered { to, why: "nobody is there".to_owned() }) })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

/// The leader's heartbeats came during the pause. One that lay in the inbox, or came out of a socket as soon as the
/// process went on, counts before the time that has passed does.
#[tokio::test]
async fn a_pause_deposes_no_leader_whose_messages_lie_waiting() {
    let test = Arc::new(Test::default());
    let node = Node::builder(NodeId(2))
        .election_timeout(ELECTION)
        .store(MemoryStore::new(Membership::of_voters([1, 2, 3].map(NodeId))))
        .transport(test.clone())
        .start(Words::default())
        .await
        .unwrap();
    test.heartbeat(1);
    until(|| test.answered(1)).await;
    test.heard.lock().unwrap().clear();

    // All tasks of this runtime stand still, as in a paused process; other threads don't.
    test.heartbeat(2);
    thread::sleep(3 * ELECTION);
    until(|| test.answered(2)).await;

    // This task plays the socket: it wakes up together with the driver's alarm.
    let socket = test.clone();
    let woken = tokio::spawn(async move {
        sleep(Duration::from_millis(1)).await;
        socket.heartbeat(3);
    });
    tokio::task::yield_now().await;
    thread::sleep(3 * ELECTION);
    woken.await.unwrap();
    until(|| test.answered(3)).await;

    let heard = test.heard.lock().unwrap().clone();
    assert!(heard.iter().all(|message| matches!(message.body, Body::HeartbeatReply { .. })), "{heard:?}");
    drop(node);
}
