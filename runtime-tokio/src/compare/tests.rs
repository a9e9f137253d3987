//! Replicas that tell each other what they are.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

fn of(members: [NodeId; 3], me: NodeId) -> Comparison {
    Comparison::new(me, Origin::default(), members)
}

fn report(hashes: &[(u64, u64)]) -> Report {
    Report {
        origin: Origin::default(),
        hashes: hashes.iter().map(|(index, hash)| (Index(*index), *hash)).collect(),
    }
}

fn range(divergence: &Divergence) -> (u64, u64, u64) {
    (divergence.node.0, divergence.last_equal.0, divergence.first_different.0)
}

#[test]
fn all_replicas_stop_at_the_same_indexes() {
    let stride = Stride::new(NonZeroU64::new(10).unwrap());
    let stops = [1, 9, 10, 11, 20, 21].map(|from| stride.next(Index(from)).0);
    assert_eq!(stops, [10, 10, 10, 20, 20, 30]);
    assert_eq!(Stride::new(NonZeroU64::MIN).next(Index(7)), Index(7));
}

#[test]
fn the_first_difference_is_alarmed_once_with_its_range_and_who_is_alone_with_it() {
    let mut one = of([ONE, TWO, THREE], ONE);
    for index in [10, 20, 30] {
        assert_eq!(one.own(Index(index), index), []);
    }
    assert_eq!(one.report(TWO, &report(&[(10, 10)])), None);
    assert_eq!(one.report(TWO, &report(&[(10, 10), (20, 20)])), None);
    let found = one.report(TWO, &report(&[(20, 20), (30, 31), (40, 41)])).unwrap();
    assert_eq!((range(&found), found.ours, found.theirs), ((2, 20, 30), 30, 31));
    assert_eq!(found.minority, [], "two of three, and it isn't known who is right");
    assert_eq!(one.own(Index(40), 40), [], "that was alarmed");
    assert_eq!(one.report(TWO, &report(&[(30, 31), (40, 41)])), None);
    assert_eq!(one.report(NodeId(9), &report(&[(30, 77)])), None, "who is no member is not listened to");
    // The third one tells who it is.
    assert_eq!(one.report(THREE, &report(&[(30, 30), (40, 40)])), None);
    let [told] = one.divergences() else { panic!("{one:?}") };
    assert_eq!((range(told), &told.minority[..]), ((2, 20, 30), &[TWO][..]));
    assert!(told.to_string().ends_with("; node 2 is alone with it"), "{told}");
}

#[test]
fn whoever_is_wrong_finds_that_too_and_says_so() {
    let mut two = of([ONE, TWO, THREE], TWO);
    assert_eq!(two.report(ONE, &report(&[(10, 10), (20, 20)])), None, "not that far yet");
    assert_eq!(two.report(THREE, &report(&[(10, 10), (20, 20)])), None);
    assert_eq!(two.own(Index(10), 10), []);
    let found = two.own(Index(20), 21);
    assert_eq!(found.iter().map(range).collect::<Vec<_>>(), [(1, 10, 20), (3, 10, 20)]);
    assert!(found.iter().all(|found| found.minority == [TWO]), "{found:?}");
    // Where all three differ, nobody is in the minority.
    let mut all = of([ONE, TWO, THREE], ONE);
    all.own(Index(10), 1);
    assert!(all.report(TWO, &report(&[(10, 2)])).unwrap().minority.is_empty());
    assert!(all.report(THREE, &report(&[(10, 3)])).unwrap().minority.is_empty());
    assert_eq!(all.divergences().len(), 2);
}

#[test]
fn who_starts_anew_is_compared_anew() {
    let mut one = of([ONE, TWO, THREE], ONE);
    one.own(Index(10), 10);
    assert!(one.report(TWO, &report(&[(10, 11)])).is_some());
    // Two is restored from a snapshot: the same again, then not.
    let origin = Origin { incarnation: Incarnation(0), restored: Index(15) };
    let anew = |hashes| Report { origin, ..report(hashes) };
    one.own(Index(20), 20);
    one.own(Index(30), 30);
    assert_eq!(one.report(TWO, &anew(&[(20, 20)])), None);
    assert_eq!(range(&one.report(TWO, &anew(&[(20, 20), (30, 31)])).unwrap()), (2, 20, 30));
    // Then it is started again; what it said before that may still arrive.
    let origin = Origin { incarnation: Incarnation(2), restored: Index(0) };
    let again = |hashes| Report { origin, ..report(hashes) };
    assert_eq!(one.report(TWO, &again(&[(20, 20)])), None);
    assert_eq!(one.report(TWO, &anew(&[(30, 31)])), None, "that was its former life");
    assert_eq!(one.report(TWO, &again(&[(30, 30)])), None);
    assert_eq!(one.divergences().len(), 1, "it is remembered");
    one.own(Index(40), 40);
    assert!(one.report(TWO, &again(&[(40, 41)])).is_some());
    // And this one is restored: what it was before says nothing about what it is now, and it may be alarmed again.
    one.restored(Index(45));
    let origin = Origin { restored: Index(45), ..Origin::default() };
    assert_eq!(one.to_send(), Report { origin, ..report(&[]) });
    assert_eq!(one.report(TWO, &again(&[(40, 41), (50, 51)])), None);
    assert_eq!(one.own(Index(50), 50).iter().map(range).collect::<Vec<_>>(), [(2, 0, 50)]);
}

#[test]
fn who_has_left_is_forgotten_and_what_is_kept_is_bounded() {
    let mut one = of([ONE, TWO, THREE], ONE);
    one.report(TWO, &report(&[(10, 11)]));
    one.members([ONE, THREE]);
    one.members([ONE, TWO, THREE]);
    assert_eq!(one.own(Index(10), 10), [], "what it said before it left does not count");
    for index in 2..10_000 {
        one.own(Index(index * 10), index);
        one.report(THREE, &report(&[(index * 10 + 1, index)]));
    }
    assert_eq!((one.own.hashes.len(), one.peers[&THREE].hashes.len()), (KEPT, KEPT));
    assert_eq!(one.to_send().hashes.len(), REPEATED);
    assert_eq!(one.to_send().hashes.last(), Some(&(Index(99_990), 9999)));
}

/// What three replicas do in some order. Reports under way arrive in any order, or never.
#[derive(Clone, Debug)]
enum Step {
    Hash(usize),
    Send { from: usize, to: usize },
    Deliver { pick: usize },
    Lose { pick: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize).prop_map(Step::Hash),
        8 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| Step::Send { from, to }),
        6 => any::<usize>().prop_map(|pick| Step::Deliver { pick }),
        2 => any::<usize>().prop_map(|pick| Step::Lose { pick }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost or late, replicas that are the same are never alarmed; and one that differs since some entry is, by
    /// everyone, once, with a range that holds that entry.
    #[test]
    fn only_what_differs_is_alarmed_and_its_range_holds_the_entry(
        steps in prop::collection::vec(step(), 1..150),
        wrong in prop::option::of((0..3_usize, 1..30_u64)),
    ) {
        let ids = [ONE, TWO, THREE];
        let mut replicas = ids.map(|id| of(ids, id));
        let (mut at, mut alarms) = ([0_u64; 3], [const { Vec::new() }; 3]);
        let hash = |replica: usize, index: u64| match wrong {
            Some((who, since)) if who == replica && index >= since => index + 1_000_000,
            _ => index,
        };
        // In the end all get there and hear of each other.
        let end = (0..3).flat_map(|from| [Step::Hash(from), Step::Hash(from)]);
        let hear = (0..9).map(|pair| Step::Send { from: pair / 3, to: pair % 3 });
        let arrive = (0..200).map(|_| Step::Deliver { pick: 0 });
        let catch_up: Vec<_> = (0..200).flat_map(|_| end.clone()).chain(hear).chain(arrive).collect();
        let mut under_way: Vec<(usize, usize, Bytes)> = Vec::new();
        for step in steps.into_iter().chain(catch_up) {
            match step {
                Step::Hash(who) if at[who] < 200 => {
                    at[who] += 5;
                    alarms[who].extend(replicas[who].own(Index(at[who]), hash(who, at[who])));
                }
                Step::Send { from, to } if from != to => {
                    under_way.push((from, to, replicas[from].to_send().encode()));
                }
                Step::Deliver { pick } if !under_way.is_empty() => {
                    let (from, to, bytes) = under_way.swap_remove(pick % under_way.len());
                    let report = Report::decode(&bytes).unwrap();
                    alarms[to].extend(replicas[to].report(ids[from], &report));
                }
                Step::Lose { pick } if !under_way.is_empty() => {
                    under_way.swap_remove(pick % under_way.len());
                }
                Step::Hash(_) | Step::Send { .. } | Step::Deliver { .. } | Step::Lose { .. } => {}
            }
        }
        for (me, alarms) in alarms.iter().enumerate() {
            let mut expected: Vec<usize> = match wrong {
                None => vec![],
                Some((who, _)) if who == me => (0..3).filter(|other| *other != me).collect(),
                Some((who, _)) => vec![who],
            };
            let mut alarmed: Vec<_> = alarms.iter().map(|alarm| alarm.node.0 as usize - 1).collect();
            alarmed.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&alarmed, &expected, "at node {}", me + 1);
            let Some((who, since)) = wrong else { continue };
            for alarm in replicas[me].divergences() {
                prop_assert!(alarm.last_equal.0 < since && since <= alarm.first_different.0, "{}", alarm);
                prop_assert!(alarm.minority.is_empty() || alarm.minority == [ids[who]], "{}", alarm);
            }
        }
    }
}
