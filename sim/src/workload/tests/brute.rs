//! The search against every order there is, on tiny histories.

use bytes::Bytes;
use proptest::prelude::*;

use crate::workload::{
    Bounds, Completed, Object, Opinion, command, query,
    register::{Change, Register},
    search,
};

/// Tries every order of every choice of operations of which nobody has heard.
fn brute(history: &[Completed]) -> bool {
    fn extend(history: &[Completed], placed: u32, state: u64) -> bool {
        let open = |i: &usize| placed & (1 << i) == 0;
        let rest = || (0..history.len()).filter(open);
        if rest().all(|i| history[i].returned.is_none()) {
            return true;
        }
        // Nothing that had returned before this began may be placed after it.
        let may_be_next = |i: &usize| {
            rest().all(|other| history[other].returned.is_none_or(|returned| returned >= history[*i].invoked))
        };
        rest().filter(may_be_next).any(|i| {
            let Completed { op, write, reply, .. } = &history[i];
            let mut next = state;
            let found =
                if *write { Register::apply(&mut next, &op[2..]).unwrap() } else { Register::read(&state) };
            reply.as_ref().is_none_or(|reply| *reply == found) && extend(history, placed | 1 << i, next)
        })
    }
    extend(history, 0, 0)
}

/// When it begins, how long it takes (nobody hears of it if 6), which kind, and what is in the answer.
fn operation() -> impl Strategy<Value = Completed> {
    (0_u64..12, 0_u64..7, 0_u8..3, 0_u64..3, 0_u64..3, any::<bool>()).prop_map(
        |(invoked, takes, kind, value, seen, equal)| {
            let op = match kind {
                0 => query(0),
                1 => Change::Write { value }.encode(0),
                _ => Change::CompareAndSet { expected: value, value: value + 1 }.encode(0),
            };
            let mut reply = seen.to_le_bytes().to_vec();
            if kind == 2 {
                reply.push(u8::from(equal));
            }
            let returned = (takes < 6).then_some(invoked + takes);
            let reply = returned.map(|_| Bytes::from(reply));
            Completed { client: 0, op, write: kind > 0, invoked, returned, index: None, reply }
        },
    )
}

/// A history in which each answer is right at some moment between beginning and end, and then perhaps one is changed: so
/// that about as many are possible as not.
fn history() -> impl Strategy<Value = Vec<Completed>> {
    let operations = prop::collection::vec((operation(), 0_u64..7), 1..8);
    (operations, prop::option::of((any::<prop::sample::Index>(), 0_u64..3))).prop_map(|(drawn, change)| {
        let mut order: Vec<(u64, usize)> = Vec::new();
        for (i, (operation, after)) in drawn.iter().enumerate() {
            let latest = operation.returned.unwrap_or(20);
            order.push((latest.min(operation.invoked + after), i));
        }
        order.sort_unstable();
        let mut history: Vec<Completed> = drawn.into_iter().map(|(operation, _)| operation).collect();
        let mut state = 0;
        for (at, i) in order {
            let Completed { op, write, returned, reply, .. } = &mut history[i];
            // Of those that nobody hears of, some never take effect.
            if returned.is_none() && at % 2 == 0 {
                continue;
            }
            let found =
                if *write { Register::apply(&mut state, &op[2..]).unwrap() } else { Register::read(&state) };
            *reply = returned.map(|_| found);
        }
        if let Some((which, seen)) = change {
            let which = which.index(history.len());
            if let Some(reply) = &mut history[which].reply {
                let mut changed = reply.to_vec();
                changed[0] = seen as u8;
                *reply = changed.into();
            }
        }
        history
    })
}

fn agrees(history: &[Completed]) -> Result<bool, TestCaseError> {
    let bounds = Bounds { effects_are_known: false, ..Bounds::default() };
    let possible = match search::<Register>(history, &bounds) {
        Opinion::Linearizable { undecided, .. } => {
            prop_assert_eq!(undecided, 0);
            true
        }
        Opinion::Impossible { .. } => false,
    };
    prop_assert_eq!(possible, brute(history), "{:?}", history);
    Ok(possible)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_search_agrees_with_trying_everything(history in history()) {
        agrees(&history)?;
    }

    #[test]
    fn it_agrees_on_answers_at_random(history in prop::collection::vec(operation(), 1..5)) {
        agrees(&history)?;
    }
}

#[test]
fn what_is_no_command_is_answered_so() {
    let op = command(0, b"?");
    let history = [Completed {
        client: 0,
        op,
        write: true,
        invoked: 1,
        returned: Some(2),
        index: Some(1),
        reply: Some(Bytes::from_static(crate::workload::MALFORMED)),
    }];
    let opinion = search::<Register>(&history, &Bounds::default());
    assert_eq!(opinion, Opinion::Linearizable { objects: 1, undecided: 0 });
}
