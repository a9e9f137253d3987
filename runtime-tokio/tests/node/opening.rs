//! Starts that nobody waits for any more, or that come too late.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use quorate_core::{GroupId, Membership, NodeId};
use quorate_runtime_tokio::{Host, MemoryNetwork, MemoryStore, Node, StartError};
use tokio::time::sleep;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

use crate::{
    failure::Faulty,
    support::{Words, alone, until, within},
};

const ONE: NodeId = NodeId(1);

/// How long a store takes to open a group here.
const OPENS_IN: Duration = Duration::from_millis(30);

/// Polls it so often, waits for what is under way then, or not, and drops it. What it has come to, if it has.
async fn given_up<T>(start: impl Future<Output = T>, polls: usize, patience: Duration) -> Option<T> {
    let mut start = pin!(start);
    let mut polled = 0;
    let outcome = poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        start.as_mut().poll(context).map(Some)
    })
    .await;
    sleep(patience).await;
    outcome
}

/// How patient those are who give up.
const PATIENCE: [Duration; 2] = [Duration::ZERO, Duration::from_millis(100)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_given_up_lets_go_of_the_store_and_the_transport() {
    let store = alone();
    for patience in PATIENCE {
        for polls in 0.. {
            let (held, network) = (Arc::new(()), MemoryNetwork::new());
            let builder = Node::builder(ONE)
                .store(Faulty::slow(store.clone(), OPENS_IN, &held))
                .transport(network.transport(ONE));
            let node = within(given_up(builder.start(Words::default()), polls, patience)).await;
            if let Some(node) = node {
                assert!(polls > 2, "it waits for the store, and for the state machine");
                within(node.unwrap().propose("works")).await.unwrap();
                break;
            }
            until(|| (Arc::strong_count(&held) == 1).then_some(())).await;
            until(|| format!("{network:?}").contains("nodes: []").then_some(())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_start_is_given_up_can_be_started_again_and_holds_nothing() {
    let group = GroupId(1);
    for patience in PATIENCE {
        for polls in 0.. {
            let held = Arc::new(());
            let host =
                Host::builder(ONE).start(Faulty::slow(MemoryStore::default(), OPENS_IN, &held)).unwrap();
            within(host.create(group, Membership::of_voters([ONE]))).await.unwrap();
            let start = || host.group(group).start(Words::default());
            if within(given_up(start(), polls, patience)).await.is_some() {
                break;
            }
            let node = within(start()).await.unwrap();
            within(node.propose("works")).await.unwrap();
            within(node.shutdown()).await;
            drop(node);
            // Nobody comes after this one: what it leaves behind stays.
            if within(given_up(start(), polls, patience)).await.is_none() {
                assert_eq!(host.open_groups(), []);
                drop(host);
                until(|| (Arc::strong_count(&held) == 1).then_some(())).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_being_opened_does_not_hold_up_a_shutdown() {
    let (held, group) = (Arc::new(()), GroupId(1));
    let slow = Faulty::slow(MemoryStore::default(), 10 * OPENS_IN, &held);
    let host = Host::builder(ONE).start(slow).unwrap();
    within(host.create(group, Membership::of_voters([ONE]))).await.unwrap();
    let opening = host.clone();
    let start = tokio::spawn(async move { opening.group(group).start(Words::default()).await.map(|_| ()) });
    sleep(Duration::from_millis(100)).await;
    within(host.shutdown()).await;
    assert_eq!(Arc::strong_count(&held), 1);
    let late = within(start).await.unwrap();
    assert!(matches!(late, Err(StartError::HostClosed)), "{late:?}");
    let later = within(host.group::<Words>(group).start(Words::default())).await.map(|_| ());
    assert!(matches!(later, Err(StartError::HostClosed)), "{later:?}");
}

/// What was logged as an error.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<&'static str>>>);

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            self.0.lock().unwrap().push(event.metadata().name());
        }
    }
}

#[tokio::test]
async fn a_node_that_never_began_is_not_said_to_have_stopped() {
    let errors = Errors::default();
    let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(errors.clone()));
    let store = MemoryStore::new(Membership::of_voters([1, 2].map(NodeId)));
    let start = within(Node::builder(ONE).store(store).start(Words::default())).await.map(|_| ());
    assert!(matches!(start, Err(StartError::NoTransport { members: 2 })), "{start:?}");
    assert_eq!(errors.0.lock().unwrap()[..], [""; 0]);
}
