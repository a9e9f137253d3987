//! Peers that say what no correct node says.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::{LogId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{
    super::{
        error::TransferError,
        frame::{self, Frame, Reason, Which},
        serve::serve,
    },
    support::*,
};
use crate::metrics::Meter;

/// A stream to node 2, which serves it.
fn to_node_2(world: &Arc<World>) -> DuplexStream {
    let (mine, theirs) = tokio::io::duplex(1 << 20);
    let local = world.local(NodeId(2), GROUP);
    tokio::spawn(async move { serve(&local, NodeId(1), Box::new(theirs)).await });
    mine
}

async fn answer(stream: &mut DuplexStream) -> Frame {
    loop {
        match frame::read(stream).await.unwrap() {
            Frame::Alive { .. } => {}
            frame => return frame,
        }
    }
}

fn chunk(offset: u64, bytes: &[u8]) -> Frame {
    Frame::Chunk { offset, bytes: Bytes::copy_from_slice(bytes) }
}

#[tokio::test(start_paused = true)]
async fn frames_that_do_not_fit_end_the_transfer_and_publish_nothing() {
    let bytes = state(3 * CHUNK, 1);
    let (one, two) = (&bytes[..CHUNK], &bytes[CHUNK..]);
    let template = World::new(&limits()).publish(1, GROUP, 100, &bytes);
    let at = |offset: usize| offset as u64;
    let scripts: Vec<(&str, Vec<Frame>)> = vec![
        ("an end before the end", vec![chunk(0, one), Frame::End]),
        ("a gap", vec![chunk(at(CHUNK), two)]),
        ("a repetition", vec![chunk(0, one), chunk(0, one)]),
        ("an offset out of this world", vec![chunk(u64::MAX, one)]),
        ("more than was announced", vec![chunk(0, one), chunk(at(CHUNK), two), chunk(at(3 * CHUNK), b"x")]),
        ("a last chunk that is too long", vec![chunk(0, &[&bytes[..], b"x"].concat())]),
        ("another offer", vec![Frame::Install(template.clone())]),
        ("an answer", vec![Frame::Accept { offset: 0 }]),
        ("an adoption of what is not there", vec![Frame::Adopt(template.clone())]),
        ("other bytes than announced", vec![chunk(0, &vec![0; 3 * CHUNK]), Frame::End]),
    ];
    for (what, script) in scripts {
        let world = World::new(&limits());
        let mut stream = to_node_2(&world);
        frame::open(&mut stream, &Frame::Install(template.clone())).await.unwrap();
        assert_eq!(answer(&mut stream).await, Frame::Accept { offset: 0 }, "{what}");
        for frame in &script {
            frame::write(&mut stream, frame).await.unwrap();
        }
        let Frame::Refused { reason, text } = answer(&mut stream).await else { panic!("{what}") };
        assert!(matches!(reason, Reason::Unreadable | Reason::Store), "{what}: {reason}, {text}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "{what}: and the stream ends");
        world.idle().await;
        assert_eq!((world.has(2, GROUP), world.told(2, GROUP)), (vec![], vec![]), "{what}");
        assert_eq!(world.desks[&NodeId(2)].board.counts().receives_failed, 1, "{what}");
        assert_eq!(world.desks[&NodeId(2)].receiving.available_permits(), 2, "{what}");
        // And an honest one gets through, whatever was staged.
        let honest = world.publish(1, GROUP, 100, &bytes);
        world.errand(2, GROUP, &honest, &[]).run().await.unwrap();
        assert_eq!(world.bytes(2, GROUP, honest.info.snapshot.last), bytes, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_begin_as_none_does_are_told_why_they_end() {
    let world = World::new(&limits());
    for (bytes, text) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "no stream of a snapshot"),
        (b"QSNP\x07whatever", "unknown version 7 of snapshot streams; this node knows 1"),
        (b"QSNP\x01\x01\xff\xff\xff\xff", "longer than"),
    ] {
        let mut stream = to_node_2(&world);
        stream.write_all(bytes).await.unwrap();
        let Frame::Refused { reason: Reason::Unreadable, text: found } = answer(&mut stream).await else {
            panic!("{text}")
        };
        assert!(found.contains(text), "{found}");
    }
    for first in [Frame::End, chunk(0, b"x"), Frame::Accept { offset: 0 }] {
        let mut stream = to_node_2(&world);
        frame::open(&mut stream, &first).await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(matches!(answer, Frame::Refused { reason: Reason::Unreadable, .. }), "{first:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_streams_are_bounded_and_given_up() {
    let world = World::new(&limits());
    let mut silent: Vec<DuplexStream> = (0..100).map(|_| to_node_2(&world)).collect();
    tokio::task::yield_now().await;
    let mut dropped = 0;
    for stream in &mut silent {
        let early = tokio::time::timeout(std::time::Duration::from_millis(1), stream.read(&mut [0])).await;
        dropped += u32::from(matches!(early, Ok(Ok(0))));
    }
    assert_eq!(dropped, 100 - 64);
    tokio::time::sleep(limits().stall_timeout).await;
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    assert_eq!(world.desks[&NodeId(2)].opening.available_permits(), 64);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_held_can_be_adopted() {
    let world = World::new(&limits());
    let held = world.publish(2, GROUP, 120, b"held");
    let mut offered = held.clone();
    offered.info.snapshot = snapshot(100);
    let mut stream = to_node_2(&world);
    frame::open(&mut stream, &Frame::Install(offered)).await.unwrap();
    assert_eq!(answer(&mut stream).await, Frame::Holds(held.clone()));
    let mut other = held;
    other.info.snapshot = snapshot(130);
    frame::write(&mut stream, &Frame::Adopt(other)).await.unwrap();
    assert!(matches!(answer(&mut stream).await, Frame::Refused { reason: Reason::Unreadable, .. }));
    assert_eq!(world.told(2, GROUP), []);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_claims_nonsense_is_not_believed() {
    let world = World::new(&limits());
    let which = world.publish(1, GROUP, 100, &state(SIZE, 2));
    let with = |index: u64, term: u64| {
        let mut other = which.clone();
        other.info.snapshot.last = LogId::new(quorate_core::Term(3), quorate_core::Index(index));
        Which { term: quorate_core::Term(term), ..other }
    };
    for lie in [
        Frame::Accept { offset: SIZE as u64 + 1 },
        Frame::Holds(with(99, 5)),
        Frame::Holds(with(120, 6)),
        Frame::Done(with(99, 5)),
        Frame::Done(with(100, 4)),
        Frame::End,
        chunk(0, b"x"),
    ] {
        let (mine, mut theirs) = tokio::io::duplex(1 << 20);
        let said = lie.clone();
        let liar = tokio::spawn(async move {
            frame::read_opening(&mut theirs).await.unwrap();
            frame::write(&mut theirs, &said).await.unwrap();
            theirs
        });
        let desk = &world.desks[&NodeId(1)];
        let activity = super::super::progress::SnapshotActivity::Sending { to: NodeId(2) };
        let listed = desk.board.list(&Meter::off(), GROUP, activity, which.info.snapshot.last, None);
        let purpose = super::super::send::Purpose::Install;
        let sent = super::super::send::send(desk, Box::new(mine), purpose, &which, None, &listed).await;
        assert!(matches!(sent, Err(TransferError::Frame(_))), "{lie:?}: {sent:?}");
        drop(liar.await.unwrap());
    }
}
