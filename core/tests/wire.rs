//! Frames: what is written is read back, and what is no frame is refused, with a reason.

mod common;

use common::{id, messages::message, run, voted};
use proptest::prelude::*;
use quorate_core::{
    Body, Few, Message, Term,
    wire::{self, DecodeError},
};

fn append() -> Message {
    let entries = Few::from(vec![run(2, 5, 3), run(4, 8, 2)]);
    Message { term: Term(4), body: Body::Append { prev: id(2, 4), commit: common::i(3), entries } }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_is_read_back_as_it_was_or_refused_as_malformed(message in message()) {
        let frame = wire::encode(&message).to_bytes();
        match (message.validate(), wire::decode(&frame)) {
            (Ok(()), decoded) => prop_assert_eq!(decoded, Ok(message)),
            // A gap between runs can't even be written: an index is told by what comes before it.
            (Err(_), Ok(decoded)) => {
                let is_append = matches!(decoded.body, Body::Append { .. });
                prop_assert!(is_append);
            }
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _either = wire::decode(&bytes);
    }

    #[test]
    fn a_damaged_frame_is_read_or_refused(message in message(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut frame = wire::encode(&message).to_bytes().to_vec();
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        if let Ok(decoded) = wire::decode(&frame) {
            prop_assert_eq!(decoded.validate(), Ok(()), "nothing malformed comes in");
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let frame = wire::encode(&append()).to_bytes();
    assert_eq!(wire::decode(&frame), Ok(append()));
    for len in 0..frame.len() {
        let error = wire::decode(&frame[..len]).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { .. } | DecodeError::Header(_)), "{len}: {error}");
    }
    let mut longer = frame.to_vec();
    longer.push(0);
    assert_eq!(wire::decode(&longer), Err(DecodeError::Trailing { extra: 1 }));
}

#[test]
fn an_unknown_version_is_refused_with_those_that_are_known() {
    let mut frame = wire::encode(&append()).to_bytes().to_vec();
    frame[0] = 9;
    let error = wire::decode(&frame).unwrap_err();
    assert_eq!(error, DecodeError::Version { found: 9 });
    assert_eq!(error.to_string(), "unknown wire version 9; this node knows [1]");
}

#[test]
fn announced_lengths_are_not_believed() {
    // A header of 2 GiB, of which nothing has come.
    let frame = [&[wire::VERSION][..], &(1_u32 << 31).to_le_bytes()].concat();
    assert_eq!(wire::decode(&frame), Err(DecodeError::Truncated { len: 5, wanted: 5 + (1 << 31) }));
    // A block that claims to be longer than all there is.
    let mut frame = wire::encode(&append()).to_bytes().to_vec();
    frame.pop();
    assert!(matches!(wire::decode(&frame), Err(DecodeError::Truncated { .. })));
}

#[test]
fn absurd_terms_are_refused_at_the_edge() {
    for term in [0, 1 << 63, u64::MAX] {
        let message = Message { term: Term(term), body: voted(true) };
        let error = wire::decode(&wire::encode(&message).to_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed(_)), "term {term}: {error}");
    }
}

#[test]
fn a_received_block_does_not_pin_the_buffer_it_came_in() {
    let frame = wire::encode(&append()).to_bytes();
    let Body::Append { entries, .. } = wire::decode(&frame).unwrap().body else { panic!("an append") };
    let range = frame.as_ptr_range();
    for run in &entries {
        assert!(!range.contains(&run.block().as_ptr()), "points into the frame");
    }
}
