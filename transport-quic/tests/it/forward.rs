//! Requests handed on to another node.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_runtime_tokio::{ForwardError, Transport as _};

use crate::common::{BUSY, Cluster, GROUP, Node, REFUSING, SILENT, UNSURE, eventually, met, within};

async fn pair(cluster: &Cluster, change: impl Fn(&mut quorate_transport_quic::Limits)) -> (Node, Node) {
    let start = |id| {
        let mut options = cluster.options(id);
        change(&mut options.limits);
        Node::start(&options)
    };
    let (a, b) = (start(1), start(2));
    met(&[&a, &b]).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_on_either_side() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |_| {}).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let answer = from.transport.forward(GROUP, to.id, "abc".into()).await;
        assert_eq!(answer, Ok(Bytes::from("cba")));
        let empty = from.transport.forward(GROUP, to.id, Bytes::new()).await;
        assert_eq!(empty, Ok(Bytes::new()));
    }
    let big: Bytes = (0..3_000_000_u32).map(|n| n as u8).collect();
    let answer = within("it is answered", a.transport.forward(GROUP, b.id, big.clone())).await.unwrap();
    assert!(answer.iter().rev().eq(big.iter()));
    assert_eq!((a.peer(b.id).forwarded, b.peer(a.id).served), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_are_all_answered() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| {
        limits.forwards = 4;
        limits.forward_timeout = Duration::from_secs(60);
    })
    .await;
    let asked: Vec<_> = (0..500_u32)
        .map(|n| tokio::spawn(a.transport.forward(GROUP, b.id, n.to_le_bytes().to_vec().into())))
        .collect();
    for (n, answer) in (0_u32..).zip(asked) {
        assert_eq!(answer.await.unwrap(), Ok(n.to_be_bytes().to_vec().into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_and_a_doubt_come_back_as_such() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |_| {}).await;
    let refused = a.transport.forward(REFUSING, b.id, "x".into()).await;
    assert_eq!(refused, Err(ForwardError::NotDelivered { to: b.id, why: "not for node 1".into() }));
    let busy = a.transport.forward(BUSY, b.id, "x".into()).await;
    assert!(matches!(busy, Err(ForwardError::Busy { to, .. }) if to == b.id), "{busy:?}");
    let unsure = a.transport.forward(UNSURE, b.id, "x".into()).await;
    assert_eq!(unsure, Err(ForwardError::Unknown { to: b.id, why: "leadership was lost".into() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_left_was_not_delivered() {
    let cluster = Cluster::of(2);
    let a = cluster.start(1);
    for to in [NodeId(2), NodeId(9)] {
        let result = a.transport.forward(GROUP, to, "x".into()).await;
        assert!(
            matches!(result, Err(ForwardError::NotDelivered { to: said, .. }) if said == to),
            "{result:?}"
        );
    }
    let b = cluster.start(2);
    met(&[&a, &b]).await;
    let too_long = Bytes::from(vec![0; cluster.options(1).limits.forward_bytes + 1]);
    let result = a.transport.forward(GROUP, b.id, too_long).await;
    assert!(matches!(result, Err(ForwardError::NotDelivered { .. })), "{result:?}");
    assert_eq!(*b.inbox.requests.borrow(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_in_time_is_unknown() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| limits.forward_timeout = Duration::from_millis(700)).await;
    let result = within("it ends", a.transport.forward(SILENT, b.id, "x".into())).await;
    assert!(matches!(result, Err(ForwardError::Unknown { to, .. }) if to == b.id), "{result:?}");
    assert_eq!(*b.inbox.requests.borrow(), 1, "it did arrive");
    // The connection is none the worse for it.
    assert_eq!(a.transport.forward(GROUP, b.id, "ab".into()).await, Ok("ba".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_ends_with_a_request_in_its_hands_leaves_it_unknown() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |_| {}).await;
    let asked = tokio::spawn(a.transport.forward(SILENT, b.id, "x".into()));
    eventually("the request arrives", || *b.inbox.requests.borrow() == 1).await;
    drop(b);
    let result = within("it ends", asked).await.unwrap();
    assert!(matches!(result, Err(ForwardError::Unknown { to: NodeId(2), .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_halfway_is_no_fault() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| limits.stream_window = 16 << 10).await;
    let connections = b.peer(a.id).connections;
    for _ in 0..20 {
        // Polled once: the window is full, and most of the request is still here.
        let asking = a.transport.forward(GROUP, b.id, vec![1; 3 << 20].into());
        assert!(tokio::time::timeout(Duration::ZERO, asking).await.is_err());
    }
    assert_eq!(a.transport.forward(GROUP, b.id, "ab".into()).await, Ok("ba".into()));
    assert_eq!((b.peer(a.id).violations, b.peer(a.id).connections), (0, connections));
    assert_eq!(*b.inbox.requests.borrow(), 1, "no other came whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_those_that_may_wait_for_their_turn_are_refused_as_busy() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| {
        (limits.forwards, limits.forwards_waiting) = (1, 1);
        limits.forward_timeout = Duration::from_secs(3600);
    })
    .await;
    let held = tokio::spawn(a.transport.forward(SILENT, b.id, "x".into()));
    eventually("the first request arrives", || *b.inbox.requests.borrow() == 1).await;
    let [mut one, mut other] = ["ab", "ab"].map(|text| a.transport.forward(GROUP, b.id, text.into()));
    let (refused, waits) = within("one of two is refused", async {
        tokio::select! { refused = &mut one => (refused, other), refused = &mut other => (refused, one) }
    })
    .await;
    assert!(matches!(refused, Err(ForwardError::Busy { to, .. }) if to == b.id), "{refused:?}");
    held.abort();
    assert_eq!(within("it is the other's turn", waits).await, Ok("ba".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_turn_does_not_come_is_refused_as_busy() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| limits.forwards = 1).await;
    let held = tokio::spawn(a.transport.forward(SILENT, b.id, "x".into()));
    eventually("the first request arrives", || *b.inbox.requests.borrow() == 1).await;
    let result = within("it ends", a.transport.forward(GROUP, b.id, "ab".into())).await;
    assert!(matches!(result, Err(ForwardError::Busy { .. })), "{result:?}");
    assert_eq!(*b.inbox.requests.borrow(), 1, "it never left");
    let first = within("it ends", held).await.unwrap();
    assert!(matches!(first, Err(ForwardError::Unknown { .. })), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_memory_for_them_are_refused_and_not_looked_at() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| limits.forward_memory = 150_000).await;
    let request = Bytes::from(vec![1; 100_000]);
    let held = tokio::spawn(a.transport.forward(SILENT, b.id, request.clone()));
    eventually("the first request arrives", || *b.inbox.requests.borrow() == 1).await;
    let result = within("it ends", a.transport.forward(GROUP, b.id, request.clone())).await;
    assert!(matches!(result, Err(ForwardError::Busy { .. })), "{result:?}");
    assert_eq!(*b.inbox.requests.borrow(), 1);
    // Whoever asked goes away; what it held is free again.
    held.abort();
    let mut answered = false;
    within("there is room again", async {
        while !answered {
            answered = a.transport.forward(GROUP, b.id, request.clone()).await.is_ok();
        }
    })
    .await;
}
