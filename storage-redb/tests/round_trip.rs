//! What is recovered equals what was written: random changes of several groups, with reopenings in between, held
//! against a model in memory.

mod common;

use common::{Change, IDENTITY, Model, voters};
use proptest::prelude::*;
use quorate_core::{GroupId, Store};
use quorate_storage_redb::{Options, RedbStore};

#[derive(Clone, Debug)]
enum Op {
    /// One commit of these changes.
    Commit(Vec<(u64, Change)>),
    /// Close (or drop) and open again.
    Reopen {
        close: bool,
        two_phase: bool,
    },
    /// A group restarts while the store stays open.
    Restart,
    AddGroup,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0_usize), 6 => 1..300_usize, 2 => 300..9_000_usize, 1 => 9_000..150_000_usize]
}

fn change() -> impl Strategy<Value = Change> {
    let sizes = || prop::collection::vec(size(), 1..5);
    prop_oneof![
        6 => (0..2_u64, sizes()).prop_map(|(newer, sizes)| Change::Append { newer, sizes }),
        1 => (1..6_u64).prop_map(|voters| Change::Membership { voters }),
        2 => (0..12_u64, sizes()).prop_map(|(back, sizes)| Change::Replace { back, sizes }),
        1 => (0..6_u64).prop_map(|back| Change::Truncate { back }),
        2 => (0..9_u64, prop::collection::vec(size(), 0..3))
            .prop_map(|(keep, sizes)| Change::Compact { keep, sizes }),
        1 => (1..20_u64, 0..2_u64, 1..6_u64)
            .prop_map(|(ahead, newer, voters)| Change::Install { ahead, newer, voters }),
        2 => (1..3_u64, prop::option::of(1..4_u64)).prop_map(|(newer, vote)| Change::Vote { newer, vote }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec((0..3_u64, change()), 1..6).prop_map(Op::Commit),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(close, two_phase)| Op::Reopen { close, two_phase }),
        1 => Just(Op::Restart),
        1 => Just(Op::AddGroup),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recovered_equals_what_was_written(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let groups = [(GroupId(0), voters(&[1, 2, 3])), (GroupId(1), voters(&[3]))];
        let mut store = RedbStore::create(dir.path(), IDENTITY, &groups).unwrap();
        let mut model = Model::new(&groups);
        prop_assert_eq!(model.check(&mut store), Ok(()));
        for op in ops {
            match op {
                Op::Commit(changes) => {
                    let count = model.groups.len() as u64;
                    let writes: Vec<_> =
                        changes.iter().map(|(group, change)| model.write(GroupId(group % count), change)).collect();
                    store.commit(&writes).unwrap();
                }
                Op::Reopen { close, two_phase } => {
                    if close { store.close().unwrap() } else { drop(store) }
                    let options = Options::default().two_phase(two_phase);
                    store = RedbStore::open_with(options, dir.path(), IDENTITY).unwrap();
                    prop_assert_eq!(model.check(&mut store), Ok(()));
                }
                Op::Restart => prop_assert_eq!(model.check(&mut store), Ok(())),
                Op::AddGroup => {
                    let id = GroupId(model.groups.len() as u64);
                    store.add_group(id, voters(&[id.0 + 1])).unwrap();
                    model.add(id, &voters(&[id.0 + 1]));
                    // A group is recovered before it is written.
                    prop_assert_eq!(model.check(&mut store), Ok(()));
                }
            }
        }
        store.close().unwrap();
        let mut store = RedbStore::open(dir.path(), IDENTITY).unwrap();
        prop_assert_eq!(model.check(&mut store), Ok(()));
    }
}
