//! Client sessions over real clusters: what is sent again is applied once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{GroupId, Membership, Message, NodeId};
use quorate_runtime_tokio::{
    BoxFuture, ForwardError, Inbound, MemoryNetwork, MemoryStore, Node, Transport,
    sessions::{Client, Command, Limits, Reply, SessionError, Sessions},
};

use crate::{
    snapshot::publish,
    support::{ELECTION, LONG, Words, alone, within},
};

type Replica = Node<Sessions<Words>>;

/// Delivers every request; of three, one has its answer lost, and one is delivered twice as well.
#[derive(Debug)]
struct Unreliable {
    inner: Arc<dyn Transport>,
    requests: AtomicU32,
}

impl Transport for Unreliable {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        self.inner.start(inbound);
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        self.inner.send(group, to, message);
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        let lost = move || Err(ForwardError::Unknown { to, why: "the connection was lost".to_owned() });
        let first = self.inner.forward(group, to, request.clone());
        match self.requests.fetch_add(1, Relaxed) % 3 {
            0 => first,
            1 => Box::pin(async move {
                let _answer = first.await?;
                lost()
            }),
            _ => {
                let again = self.inner.forward(group, to, request);
                Box::pin(async move {
                    let _answer = first.await?;
                    let _answer = again.await?;
                    lost()
                })
            }
        }
    }

    fn shutdown(&self) -> BoxFuture<()> {
        self.inner.shutdown()
    }
}

async fn start(store: MemoryStore, id: NodeId, transport: Option<Arc<dyn Transport>>) -> Replica {
    let mut builder = Node::builder(id).election_timeout(ELECTION).request_timeout(LONG / 8);
    if let Some(transport) = transport {
        builder = builder.transport(transport);
    }
    let machine = Sessions::new(Words::default(), Limits::default()).unwrap();
    builder.store(store).start(machine).await.unwrap()
}

async fn texts(node: &Replica) -> Vec<String> {
    within(node.read(|sessions| sessions.machine().texts())).await.unwrap()
}

/// X1. Clients on each of three nodes; answers are lost, requests repeated, and the leader cut off in the midst of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_is_applied_once_though_answers_are_lost() {
    const CALLERS: u64 = 4;
    const EACH: u64 = 12;
    let (network, ids) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId));
    let mut nodes = Vec::new();
    for id in ids {
        let transport = Unreliable { inner: network.transport(id), requests: AtomicU32::new(0) };
        let store = MemoryStore::new(Membership::of_voters(ids));
        nodes.push(start(store, id, Some(Arc::new(transport))).await);
    }
    let mut callers = Vec::new();
    for node in &nodes {
        let client: Arc<Client<Words>> = Arc::new(Client::new(node.clone()).timeout(LONG));
        for caller in 0..CALLERS {
            let (client, id) = (client.clone(), node.id());
            callers.push(tokio::spawn(async move {
                let mut places = Vec::new();
                for n in 0..EACH {
                    let word = format!("{id}/{caller}/{n}");
                    places.push((word.clone(), client.propose(word).await.unwrap()));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                places
            }));
        }
    }
    let leader = within(nodes[0].leadership().wait_for(|seen| seen.leader.is_some())).await.unwrap().leader;
    network.isolate(leader.unwrap());
    tokio::time::sleep(ELECTION).await;
    network.heal();
    let mut places = Vec::new();
    for caller in callers {
        places.extend(within(caller).await.unwrap());
    }
    let words = texts(&nodes[0]).await;
    for node in &nodes {
        assert_eq!(texts(node).await, words, "on node {}", node.id());
    }
    assert_eq!(words.len() as u64, 3 * CALLERS * EACH);
    assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
    // Each reply is that of the one time it was applied.
    for (word, place) in places {
        assert_eq!(words[usize::try_from(place.0).unwrap() - 1], word);
    }
}

/// The table is in the snapshot: a node that starts from one knows what was applied before it.
#[tokio::test]
async fn a_retry_is_known_after_a_restart_from_a_snapshot() {
    let store = alone();
    let node = start(store.clone(), NodeId(1), None).await;
    let client: Client<Words> = Client::new(node.clone());
    let place = within(client.propose("once")).await.unwrap();
    let session = client.session().unwrap();
    let (at, frozen) = within(node.freeze()).await.unwrap();
    let mut bytes = Vec::new();
    frozen.write(&mut bytes).unwrap();
    within(node.shutdown()).await;
    publish(&store, &at, &bytes);

    let node = start(store, NodeId(1), None).await;
    assert_eq!(node.read(|sessions| (sessions.open(), sessions.machine().applied)).await, Ok((1, 0)));
    let command = Bytes::from_static(b"once");
    let (seq, acknowledged, time) = (1, 0, 0);
    let retry = Command::Apply { session, seq, acknowledged, time, command };
    let reply = within(node.propose(retry)).await.unwrap();
    assert_eq!(reply, Reply::Applied(place.into()));
    assert_eq!(texts(&node).await, ["once"]);
    // The node that the client goes through has stopped for ever, and nothing is left open.
    let stopped = within(client.propose("more")).await;
    assert!(matches!(stopped, Err(SessionError::Refused(_))), "{stopped:?}");
}

/// Replies are those of the machine within, typed; one that can't be read says that the command was applied.
#[tokio::test]
async fn a_reply_that_cannot_be_read_says_that_it_happened() {
    let node = start(alone(), NodeId(1), None).await;
    let client: Client<Words> = Client::new(node.clone());
    let unreadable = within(client.propose("unreadable")).await;
    assert_eq!(unreadable, Err(SessionError::Unreadable { why: "places begin at 1".to_owned() }));
    within(client.close()).await.unwrap();
    assert_eq!(node.read(Sessions::open).await, Ok(0));
}
