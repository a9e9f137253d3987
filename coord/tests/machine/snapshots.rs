//! Snapshots: what comes out of one is what went in, or an error.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use quorate_coord::{
    machine::{Command, Machine, RestoreError, SNAPSHOT_FORMAT},
    pb::{
        command::ForcedRecovery,
        etcdserverpb::{PutRequest, TxnRequest},
    },
};
use quorate_core::{Frozen as _, Sink, Source, StateError, StateMachine as _};

use crate::{
    model::a_command,
    support::{Asked, delete, op, put},
};

/// The snapshot of this state.
fn write(machine: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.freeze().unwrap().write(&mut bytes).unwrap();
    bytes
}

fn read(mut bytes: &[u8]) -> Result<Machine, RestoreError> {
    let machine = Machine::read_snapshot(&mut bytes)?;
    assert_eq!(bytes.len(), 0, "all of it is read");
    Ok(machine)
}

/// As the trait has it, into a machine that holds something else.
fn restore(bytes: &[u8]) -> Machine {
    let mut machine = sample().0;
    // A few bytes at a time, as a file may give them.
    machine.restore(&mut Drops { rest: bytes, most: 7 }).unwrap();
    machine
}

/// Gives a few bytes at a time.
struct Drops<'a> {
    rest: &'a [u8],
    most: usize,
}

impl Source for Drops<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, StateError> {
        let most = out.len().min(self.most);
        self.rest.read(&mut out[..most])
    }
}

fn recovery(node: u64) -> ForcedRecovery {
    ForcedRecovery {
        node,
        old_cluster: u64::MAX,
        new_cluster: 7,
        voters: vec![1, 2, 3],
        voters_outgoing: vec![2],
        learners: vec![],
        last_term: 4,
        last_index: 99,
    }
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![15 => a_command(), 1 => (1..9_u64).prop_map(|node| Command::Recovered(recovery(node)))]
}

/// A small state with something of everything.
fn sample() -> Asked {
    let mut asked = Asked::default();
    asked.put("a", "1");
    asked.put("b", "");
    asked.put("a", "2");
    asked.delete(delete("b", ""));
    asked.put("c", "three");
    asked.compact(3).unwrap();
    asked.put("b", "again");
    asked.0.apply_command(Command::Recovered(recovery(3)));
    asked
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Commands, a snapshot, more commands: the restored machine is the one that went on, in state, digest and replies.
    #[test]
    fn a_restored_machine_goes_on_as_the_one_before(
        before in vec(command(), 0..40),
        after in vec(command(), 0..20),
    ) {
        let mut one = Machine::new();
        before.into_iter().for_each(|command| drop(one.apply_command(command)));
        let frozen = one.freeze().unwrap();
        let (digest, bytes) = (one.digest(), one.bytes());
        let mut other: Option<Machine> = None;
        let mut early = Vec::new();
        for (n, command) in after.into_iter().enumerate() {
            let reply = one.apply_command(command.clone());
            if n == 0 {
                // Not before: what has happened since must not show.
                frozen.write(&mut early).unwrap();
                let restored = restore(&early);
                prop_assert_eq!((restored.digest(), restored.bytes()), (digest, bytes));
                other = Some(restored);
            }
            let other = other.as_mut().unwrap();
            prop_assert_eq!(other.apply_command(command), reply);
            prop_assert_eq!(&*other, &one);
        }
        prop_assert_eq!(&restore(&write(&one)), &one);
        if let Some(other) = other {
            prop_assert_eq!((other.digest(), other.bytes()), (one.digest(), one.bytes()));
            prop_assert_eq!(write(&other), write(&one), "equal states have equal bytes");
        }
    }

    /// Whatever is read, no more memory is asked for than there are bytes, and nothing panics.
    #[test]
    fn anything_else_is_refused(mut bytes in vec(any::<u8>(), 0..200), head in 0_usize..80) {
        let good = write(&sample().0);
        let head = head.min(good.len());
        bytes.splice(0..0, good[..head].iter().copied());
        if bytes != good {
            prop_assert!(read(&bytes).is_err());
        }
    }

    /// Equal states have equal bytes, though one came about by insertions in another order.
    #[test]
    fn the_bytes_are_canonical(keys in vec(0_u16..2000, 1..600)) {
        let (mut one, mut keys_in_order) = (Machine::new(), keys.clone());
        keys_in_order.sort_unstable();
        let puts = |keys: &[u16]| {
            keys.iter().map(|key| op(put(&format!("{key:04}"), "x"))).collect()
        };
        // One transaction is one revision, whatever the order within it.
        let mut other = Machine::new();
        let txn = |success| Command::Txn(TxnRequest { success, ..Default::default() });
        one.apply_command(txn(puts(&keys)));
        other.apply_command(txn(puts(&keys_in_order)));
        prop_assert_eq!(write(&one), write(&other));
        prop_assert_eq!(one, other);
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let machine = sample().0;
    let good = write(&machine);
    assert_eq!(read(&good).unwrap(), machine);
    for len in 0..good.len() {
        let error = read(&good[..len]).unwrap_err();
        let expected = if len < 8 {
            matches!(error, RestoreError::Magic)
        } else {
            matches!(error, RestoreError::Truncated { at } if at == len as u64)
        };
        assert!(expected, "{len}: {error}");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(read(&bad).is_err(), "bit {bit} of byte {at} may not go unnoticed");
        }
    }
    let error = read(&[&good[..], b"\0"].concat()).unwrap_err();
    assert!(matches!(error, RestoreError::Trailing { at } if at == good.len() as u64), "{error}");
}

#[test]
fn another_format_is_named_with_the_one_that_is_known() {
    let mut other = write(&Machine::new());
    other[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let error = read(&other).unwrap_err();
    assert!(matches!(error, RestoreError::Version(2)));
    assert_eq!(
        error.to_string(),
        format!("the snapshot is of format 2; this version knows {SNAPSHOT_FORMAT}")
    );
}

#[test]
fn a_refused_snapshot_leaves_the_machine_as_it_was_and_its_error_keeps_its_type() {
    let mut machine = sample().0;
    let error = machine.restore(&mut &b"QRTCOORD"[..]).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(RestoreError::Truncated { at: 8 })), "{error}");
    assert_eq!(machine, sample().0);
    struct Broken;
    impl Source for Broken {
        fn read(&mut self, _: &mut [u8]) -> Result<usize, StateError> {
            Err("no such disk".into())
        }
    }
    assert_eq!(
        machine.restore(&mut Broken).unwrap_err().to_string(),
        "the snapshot can't be read: no such disk"
    );
}

/// A small state, byte by byte: a change of the format shows here.
#[test]
fn the_format_is_what_its_documentation_says() {
    let mut asked = Asked::default();
    asked.put("key", "v");
    asked.delete(delete("key", ""));
    let mut expected = b"QRTCOORD\x01\0\0\0".to_vec();
    let mut add = |bytes: &[u8]| expected.extend_from_slice(bytes);
    [3_i64, -1, 1].iter().for_each(|number| add(&number.to_le_bytes()));
    add(&[0; 4]);
    add(b"\x03\0\0\0key\x02\0\0\0");
    add(&2_i64.to_le_bytes());
    add(&[1]);
    [2_i64, 1, 0].iter().for_each(|number| add(&number.to_le_bytes()));
    add(b"\x01\0\0\0v");
    add(&3_i64.to_le_bytes());
    add(&[0]);
    add(&asked.0.digest().to_le_bytes());
    assert_eq!(write(&asked.0), expected);
}

fn numbers(bytes: &mut Vec<u8>, numbers: &[i64]) {
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

/// Lengths and counts that nothing stands behind.
#[test]
fn what_is_claimed_takes_no_memory() {
    let head = |keys: u64| {
        let mut bytes = b"QRTCOORD\x01\0\0\0".to_vec();
        numbers(&mut bytes, &[5, -1, keys as i64]);
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    let most = u32::MAX.to_le_bytes();
    let key = b"\x01\0\0\0k";
    for tail in [
        most.to_vec(),
        [&key[..], &most].concat(),
        [
            &key[..],
            &[1, 0, 0, 0],
            &2_i64.to_le_bytes(),
            &[1],
            &2_i64.to_le_bytes(),
            &1_i64.to_le_bytes(),
            &[0; 8],
            &most,
        ]
        .concat(),
    ] {
        let bytes = [head(u64::MAX), tail].concat();
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, RestoreError::Truncated { .. }), "{error}");
    }
    let bytes = [&head(0)[..36], &most, &most].concat();
    assert!(matches!(read(&bytes), Err(RestoreError::Truncated { .. })));
}

#[test]
fn what_no_store_can_come_to_is_named() {
    let small = |key: &[&[u8]], versions: &[(i64, u8, [i64; 3])]| {
        let mut bytes = b"QRTCOORD\x01\0\0\0".to_vec();
        numbers(&mut bytes, &[5, -1, key.len() as i64]);
        bytes.extend_from_slice(&[0; 4]);
        for key in key {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&(versions.len() as u32).to_le_bytes());
            for (modified, is, more) in versions {
                bytes.extend_from_slice(&modified.to_le_bytes());
                bytes.push(*is);
                if *is > 0 {
                    numbers(&mut bytes, more);
                    bytes.extend_from_slice(&[0; 4]);
                }
            }
        }
        bytes.extend_from_slice(&[0; 8]);
        read(&bytes).unwrap_err().to_string()
    };
    let fine = (2, 1, [2, 1, 0]);
    assert!(small(&[b"a"], &[fine]).contains("its digest is"));
    for (key, versions, what) in [
        (&[&b"b"[..], b"a"][..], &[fine][..], "a key is out of order"),
        (&[b"a", b"a"], &[fine], "a key is out of order"),
        (&[b"a"], &[], "a key has no versions"),
        (&[b"a"], &[(6, 0, [0; 3])], "not between its neighbours"),
        (&[b"a"], &[(1, 0, [0; 3])], "not between its neighbours"),
        (&[b"a"], &[(4, 0, [0; 3]), (3, 0, [0; 3])], "not between its neighbours"),
        (&[b"a"], &[(2, 2, [2, 1, 0])], "neither stored nor deleted"),
        (&[b"a"], &[(2, 1, [3, 1, 0])], "created after it was written"),
        (&[b"a"], &[(2, 1, [2, 0, 0])], "a version's number is below 1"),
    ] {
        let error = small(key, versions);
        assert!(error.contains(what), "{error}");
    }
}

/// Large values go through in pieces, and small ones together.
#[test]
fn chunks_are_neither_tiny_nor_huge() {
    #[derive(Default)]
    struct Sizes(Vec<usize>);
    impl Sink for Sizes {
        fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
            self.0.push(bytes.len());
            Ok(())
        }
    }
    let mut asked = Asked::default();
    for n in 0..3000 {
        asked.0.apply_command(Command::Put(put(&format!("{n}"), &"x".repeat(n % 100))));
    }
    let large: Bytes = vec![b'y'; 1_000_000].into();
    for n in 0..3 {
        asked.0.apply_command(Command::Put(PutRequest { value: large.clone(), ..put(&format!("l{n}"), "") }));
    }
    let mut sizes = Sizes::default();
    asked.0.write(&mut sizes).unwrap();
    let total: usize = sizes.0.iter().sum();
    assert!(total > 3_000_000 && sizes.0.len() < 100, "{} chunks", sizes.0.len());
    assert!(sizes.0.iter().all(|size| *size < 128 << 10), "{:?}", sizes.0.iter().max());
    assert_eq!(read(&write(&asked.0)).unwrap(), asked.0);
}
