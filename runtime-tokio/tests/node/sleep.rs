//! Groups that sleep, and what nobody but their drivers can tell them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{
    Body, Entry, GroupId, Index, LogId, Membership, Message, NodeId, Run, StateMachine, Term,
};
use quorate_runtime_tokio::{
    BoxFuture, ForwardError, Host, Inbound, MemoryNetwork, MemoryStore, Node, StopReason, Transport,
};

use crate::{
    groups::{Hosts, IDS},
    health::all_asleep,
    pause::Test,
    support::{ELECTION, LONG, Place, Words, until, within},
};

// ---- a group that ends while its process lives: no transport notices ----

async fn open<S: StateMachine>(host: &Host, group: GroupId, machine: S) -> Node<S> {
    let builder = host.group(group).election_timeout(ELECTION).quiesce_after(ELECTION);
    within(builder.request_timeout(LONG / 2).start(machine)).await.unwrap()
}

/// Opens the group everywhere, and says who leads it.
async fn open_all<S: StateMachine>(hosts: &Hosts, group: GroupId, machines: [S; 3]) -> (Vec<Node<S>>, usize) {
    let mut nodes = Vec::new();
    for (host, machine) in hosts.hosts.iter().zip(machines) {
        within(host.create(group, Membership::of_voters(IDS))).await.unwrap();
        nodes.push(open(host, group, machine).await);
    }
    let leader = until(|| nodes[0].leadership().borrow().leader).await;
    (nodes, IDS.iter().position(|id| *id == leader).unwrap())
}

/// The other two have found another leader, though nobody asks them for anything.
async fn replaced<S: StateMachine>(nodes: &[Node<S>], gone: NodeId) {
    let led = |node: &Node<S>| node.leadership().borrow().leader.is_some_and(|leader| leader != gone);
    until(|| nodes.iter().filter(|node| node.id() != gone).all(led).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_last_handle_is_dropped_is_replaced() {
    let hosts = Hosts::start();
    let (mut nodes, gone) = open_all::<Words>(&hosts, GroupId(1), Default::default()).await;
    let (others, _) = open_all::<Words>(&hosts, GroupId(2), Default::default()).await;
    within(nodes[0].propose("work")).await.unwrap();
    all_asleep(&nodes).await;
    all_asleep(&others).await;
    let term = others[0].leadership().borrow().term;
    drop(nodes.remove(gone));
    replaced(&nodes, IDS[gone]).await;
    within(nodes[0].propose("on")).await.unwrap();
    assert_eq!(others[0].leadership().borrow().term, term, "the other group has nothing to do with it");
}

/// Takes all commands alike. Armed, it holds on to the next one until it is sprung, and panics.
#[derive(Clone, Default)]
struct Trap(Arc<AtomicU8>);

const ARMED: u8 = 1;
const HELD: u8 = 2;
const SPRUNG: u8 = 3;

impl StateMachine for Trap {
    type Command = Bytes;
    type Reply = Place;

    fn apply(&mut self, _: &Entry) -> Place {
        if self.0.compare_exchange(ARMED, HELD, SeqCst, SeqCst).is_ok() {
            for _ in 0..LONG.as_millis() {
                if self.0.load(SeqCst) == SPRUNG {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            panic!("sprung");
        }
        Place(1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_machine_panics_is_replaced() {
    let hosts = Hosts::start();
    let traps = [Trap::default(), Trap::default(), Trap::default()];
    let (nodes, gone) = open_all(&hosts, GroupId(1), traps.clone()).await;
    let (others, _) = open_all::<Words>(&hosts, GroupId(2), Default::default()).await;
    within(nodes[gone].propose("work")).await.unwrap();
    traps[gone].0.store(ARMED, SeqCst);
    let (leader, proposal) = (nodes[gone].clone(), "trapped");
    let _unknown = tokio::spawn(async move { leader.propose(proposal).await });
    until(|| (traps[gone].0.load(SeqCst) == HELD).then_some(())).await;
    // It is committed, and handed to all machines: there is nothing left to do for the group but to sleep.
    all_asleep(&nodes).await;
    all_asleep(&others).await;
    traps[gone].0.store(SPRUNG, SeqCst);
    replaced(&nodes, IDS[gone]).await;
    assert!(matches!(within(nodes[gone].stopped()).await.why, StopReason::Panicked { .. }));
    within(nodes[(gone + 1) % 3].propose("on")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_store_fails_is_replaced() {
    let hosts = Hosts::start();
    let (nodes, gone) = open_all::<Words>(&hosts, GroupId(1), Default::default()).await;
    let (others, _) = open_all::<Words>(&hosts, GroupId(2), Default::default()).await;
    within(nodes[0].propose("work")).await.unwrap();
    all_asleep(&nodes).await;
    all_asleep(&others).await;
    // That is noticed by the next write, which the other group makes.
    hosts.stores[gone].fail("no space left");
    let (other, word) = (others[(gone + 1) % 3].clone(), "of the other group");
    let _either = tokio::spawn(async move { other.propose(word).await });
    replaced(&nodes, IDS[gone]).await;
    replaced(&others, IDS[gone]).await;
    assert!(matches!(within(nodes[gone].stopped()).await.why, StopReason::Storage(_)));
    within(nodes[(gone + 1) % 3].propose("on")).await.unwrap();
}

// ---- what the transport says, and when ----

/// A node that may sleep, and whose leader is the test.
async fn follower(test: &Arc<Test>) -> Node<Words> {
    let builder = Node::builder(NodeId(2)).election_timeout(ELECTION).quiesce_after(ELECTION);
    let store = MemoryStore::new(Membership::of_voters(IDS));
    let node = builder.store(store).transport(test.clone()).start(Words::default()).await.unwrap();
    let entries = Run::commands(Term(1), Index(1), &[b"work"]).into_iter().collect();
    test.say(Body::Append { prev: LogId::ZERO, commit: Index(0), entries });
    heard(test, |body| matches!(body, Body::Appended { .. })).await;
    node
}

async fn heard(test: &Test, what: impl Fn(&Body) -> bool) {
    until(|| test.heard.lock().unwrap().iter().any(|message| what(&message.body)).then_some(())).await;
}

const SLEEP: Body = Body::Heartbeat { commit: Index(1), round: 1, quiesce: true };

/// This is one task, so the driver finds both at once.
#[tokio::test]
async fn an_old_word_of_sleep_is_not_taken_for_touch_with_a_leader_that_is_gone() {
    let test = Arc::new(Test::default());
    let node = follower(&test).await;
    test.say(SLEEP);
    test.node.get().unwrap().unreachable(NodeId(1));
    heard(&test, |body| matches!(body, Body::PreVote { .. })).await;
    drop(node);
}

/// As of one that was started anew so fast that its new connection took the place of the old one, and that didn't open the group.
#[tokio::test]
async fn a_leader_that_was_lost_and_is_back_at_once_is_asked_whether_it_leads() {
    let test = Arc::new(Test::default());
    let node = follower(&test).await;
    test.say(SLEEP);
    heard(&test, |body| matches!(body, Body::HeartbeatReply { asleep: true, .. })).await;
    test.node.get().unwrap().unreachable(NodeId(1));
    test.node.get().unwrap().reachable(NodeId(1));
    heard(&test, |body| matches!(body, Body::PreVote { .. })).await;
    drop(node);
}

async fn start(id: NodeId, transport: Arc<dyn Transport>) -> Node<Words> {
    let builder = Node::builder(id).store(MemoryStore::new(Membership::of_voters(IDS))).transport(transport);
    let builder = builder.election_timeout(ELECTION).quiesce_after(ELECTION).request_timeout(LONG / 2);
    builder.start(Words::default()).await.unwrap()
}

/// No transport loses who has never been there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_keeps_nobody_awake() {
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in [NodeId(1), NodeId(2)] {
        nodes.push(start(id, network.transport(id)).await);
    }
    within(nodes[0].propose("without the third")).await.unwrap();
    all_asleep(&nodes).await;
    let leader = nodes[0].leadership().borrow().leader.unwrap();
    let leader = nodes.iter().find(|node| node.id() == leader).unwrap();
    within(leader.add_learner(NodeId(9))).await.unwrap();
    within(nodes[0].propose("without the fourth")).await.unwrap();
    all_asleep(&nodes).await;
    // When it comes, it is brought up to date.
    nodes.push(start(NodeId(3), network.transport(NodeId(3))).await);
    assert_eq!(
        within(nodes[2].read(Words::texts)).await.unwrap(),
        ["without the third", "without the fourth"]
    );
    all_asleep(&nodes).await;
}

/// A transport that says nothing of touch.
#[derive(Debug)]
struct Mute(Arc<dyn Transport>);

impl Transport for Mute {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        self.0.start(Arc::new(Ears(inbound)));
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        self.0.send(group, to, message);
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        self.0.forward(group, to, request)
    }

    fn shutdown(&self) -> BoxFuture<()> {
        self.0.shutdown()
    }
}

struct Ears(Arc<dyn Inbound>);

impl fmt::Debug for Ears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ears")
    }
}

impl Inbound for Ears {
    fn receive(&self, group: GroupId, from: NodeId, message: Message) {
        self.0.receive(group, from, message);
    }

    fn forwarded(
        &self,
        group: GroupId,
        from: NodeId,
        request: Bytes,
    ) -> BoxFuture<Result<Bytes, ForwardError>> {
        self.0.forwarded(group, from, request)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_heard_is_in_touch_whatever_the_transport_says() {
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in IDS {
        nodes.push(start(id, Arc::new(Mute(network.transport(id)))).await);
    }
    for round in 0..3 {
        within(nodes[round].propose(format!("{round}"))).await.unwrap();
        let term = nodes[0].leadership().borrow().term;
        all_asleep(&nodes).await;
        assert_eq!(nodes[0].leadership().borrow().term, term);
    }
    for node in &nodes {
        assert_eq!(within(node.read(Words::texts)).await.unwrap(), ["0", "1", "2"]);
    }
}
