//! The records in the database: keys, bytes, checksums.
//!
//! Two tables. `log` maps (group, first index) to a run of entries: a header and the block as it came.
//! `groups` maps (group, kind) to what is known of the group. The group is in every key. Every value begins with its
//! format's version and has a CRC-32C of key and value in it, so that a value at another's place is noticed too.

use bytes::Bytes;
use quorate_core::{BlockError, GroupId};
use quorate_core::{HardState, Incarnation, Index, LogId, Membership, Run, Term};
use redb::TableDefinition;

use crate::front::Cursor;

/// (group, first index), big-endian, so that they sort.
pub(crate) type LogKey = [u8; 16];
/// (group, kind).
pub(crate) type GroupKey = [u8; 9];

pub(crate) const LOG: TableDefinition<'static, &LogKey, &[u8]> = TableDefinition::new("log");
pub(crate) const GROUPS: TableDefinition<'static, &GroupKey, &[u8]> = TableDefinition::new("groups");

/// The version of the records that this release writes.
const VERSION: u8 = 1;
/// The versions it reads.
pub(crate) const KNOWN: &str = "1";

const KIND_BASE: u8 = 0;
const KIND_STATE: u8 = 1;
const KIND_REMOVED: u8 = 3;
/// Where the number of a commit that changed no group is: that of a bootstrap without any.
pub(crate) const COMMIT_KEY: GroupKey = [0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Bytes in front of a run's block.
pub(crate) const RUN_HEADER: usize = 44;
const STATE_LEN: usize = 4 + 6 * 8 + 8 + 4;
const REMOVED_LEN: usize = 4 + 2 * 8 + 4;

const FLAG_MEMBERSHIP: u8 = 1;

/// Why a record can't be used.
#[derive(Debug)]
pub(crate) enum Bad {
    /// Written by another release.
    Version(u8),
    /// Not what was written.
    Damaged(String),
}

impl From<&str> for Bad {
    fn from(what: &str) -> Self {
        Self::Damaged(what.to_owned())
    }
}

pub(crate) fn log_key(group: GroupId, first: Index) -> LogKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8..].copy_from_slice(&first.0.to_be_bytes());
    key
}

/// The index in a log key.
pub(crate) fn index_of(key: &LogKey) -> Index {
    let [.., a, b, c, d, e, f, g, h] = *key;
    Index(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// Where a group's [`State`] is.
pub(crate) fn state_key(group: GroupId) -> GroupKey {
    group_key(group, KIND_STATE)
}

/// Where a group's [`Base`] is.
pub(crate) fn base_key(group: GroupId) -> GroupKey {
    group_key(group, KIND_BASE)
}

/// Where it is written that a group was [removed](Removed).
pub(crate) fn removed_key(group: GroupId) -> GroupKey {
    group_key(group, KIND_REMOVED)
}

/// What a record in the table `groups` is of, by its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A [`State`]: each group has one.
    State(GroupId),
    /// A [`Removed`].
    Removed(GroupId),
    /// A [`Base`], which goes with a state; or the number of a commit.
    Other,
}

pub(crate) fn kind_of(key: &GroupKey) -> Kind {
    let [a, b, c, d, e, f, g, h, kind] = *key;
    let group = GroupId(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    match kind {
        KIND_STATE => Kind::State(group),
        KIND_REMOVED => Kind::Removed(group),
        _ => Kind::Other,
    }
}

fn group_key(group: GroupId, kind: u8) -> GroupKey {
    let mut key = [kind; 9];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key
}

/// What is known of a group beside its entries. Written when term, vote or incarnation change, or entries are removed;
/// not when entries are only appended, for each run says itself which commit it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// The number of the store's commit that wrote this.
    pub(crate) commit: u64,
    /// The group's latest life.
    pub(crate) incarnation: Incarnation,
    /// Term and vote.
    pub(crate) hard_state: HardState,
    /// The end of the log after that commit, unless a run of a later commit follows.
    pub(crate) last: LogId,
}

impl State {
    pub(crate) fn encode(&self, group: GroupId) -> [u8; STATE_LEN] {
        let mut value = [0; STATE_LEN];
        value[0] = VERSION;
        let numbers = [
            self.commit,
            self.incarnation.0,
            self.hard_state.term.0,
            self.hard_state.vote.map_or(0, |vote| vote.0),
            self.last.term.0,
            self.last.index.0,
            0,
        ];
        for (to, number) in value[4..].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let body = STATE_LEN - 4;
        let sum = checksum(&state_key(group), &[&value[..body]]);
        value[body..].copy_from_slice(&sum.to_le_bytes());
        value
    }

    pub(crate) fn decode(group: GroupId, value: &[u8]) -> Result<Self, Bad> {
        let mut rest = checked(&state_key(group), value)?;
        let mut parse = || {
            Some(Self {
                commit: rest.u64()?,
                incarnation: Incarnation(rest.u64()?),
                hard_state: HardState { term: Term(rest.u64()?), vote: rest.vote()? },
                last: LogId::new(Term(rest.u64()?), Index(rest.u64()?)),
            })
        };
        parse().ok_or_else(|| "its state is cut short".into())
    }
}

/// Where the log begins. It is also the newest snapshot that the store knows of: see the [crate's page](crate).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    /// The last entry that a snapshot has replaced.
    pub(crate) id: LogId,
    /// The membership there.
    pub(crate) membership: Membership,
}

impl Base {
    pub(crate) fn encode(&self, group: GroupId) -> Vec<u8> {
        let membership = self.membership.encode();
        let mut value = vec![VERSION, 0, 0, 0];
        value.extend_from_slice(&self.id.term.0.to_le_bytes());
        value.extend_from_slice(&self.id.index.0.to_le_bytes());
        value.extend_from_slice(&membership);
        let sum = checksum(&base_key(group), &[&value]);
        value.extend_from_slice(&sum.to_le_bytes());
        value
    }

    pub(crate) fn decode(group: GroupId, value: &[u8]) -> Result<Self, Bad> {
        let mut rest = checked(&base_key(group), value)?;
        let (Some(term), Some(index)) = (rest.u64(), rest.u64()) else {
            return Err("the beginning of its log is cut short".into());
        };
        let membership = Membership::decode(rest.0).map_err(|error| Bad::Damaged(error.to_string()))?;
        Ok(Self { id: LogId::new(Term(term), Index(index)), membership })
    }
}

/// All that is left of a group that was removed: it must never be here again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Removed {
    /// The number of the store's commit that has removed it.
    pub(crate) commit: u64,
    /// Its last life.
    pub(crate) incarnation: Incarnation,
}

impl Removed {
    pub(crate) fn encode(self, group: GroupId) -> [u8; REMOVED_LEN] {
        let mut value = [0; REMOVED_LEN];
        value[0] = VERSION;
        value[4..12].copy_from_slice(&self.commit.to_le_bytes());
        value[12..20].copy_from_slice(&self.incarnation.0.to_le_bytes());
        let sum = checksum(&removed_key(group), &[&value[..20]]);
        value[20..].copy_from_slice(&sum.to_le_bytes());
        value
    }

    pub(crate) fn decode(group: GroupId, value: &[u8]) -> Result<Self, Bad> {
        let mut rest = checked(&removed_key(group), value)?;
        let mut parse = || Some(Self { commit: rest.u64()?, incarnation: Incarnation(rest.u64()?) });
        parse().ok_or_else(|| "the record of its removal is cut short".into())
    }
}

/// The number of a commit that changed no group.
pub(crate) fn encode_commit(commit: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[0] = VERSION;
    value[4..12].copy_from_slice(&commit.to_le_bytes());
    let sum = checksum(&COMMIT_KEY, &[&value[..12]]);
    value[12..].copy_from_slice(&sum.to_le_bytes());
    value
}

pub(crate) fn decode_commit(value: &[u8]) -> Result<u64, Bad> {
    checked(&COMMIT_KEY, value)?.u64().ok_or_else(|| "the number of a commit is cut short".into())
}

/// A version first, a checksum last: what is between, once both are right.
fn checked<'a>(key: &[u8], value: &'a [u8]) -> Result<Cursor<'a>, Bad> {
    let version = *value.first().ok_or("a record is empty")?;
    if version != VERSION {
        return Err(Bad::Version(version));
    }
    let (body, sum) = value.split_last_chunk::<4>().ok_or("a record is cut short")?;
    if checksum(key, &[body]) != u32::from_le_bytes(*sum) {
        return Err("the checksum of a record does not match".into());
    }
    Ok(Cursor(body.get(4..).unwrap_or_default()))
}

/// What is in front of a run's block. Knowing it is enough for recovery, but for memberships.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunHeader {
    /// The number of the store's commit that wrote it.
    pub(crate) commit: u64,
    pub(crate) term: Term,
    pub(crate) first: Index,
    pub(crate) count: u32,
    pub(crate) has_membership: bool,
}

impl RunHeader {
    /// The name of the run's last entry.
    pub(crate) fn last_id(&self) -> LogId {
        LogId::new(self.term, self.first.plus(u64::from(self.count)).prev())
    }

    /// Is this entry in the run?
    pub(crate) fn holds(&self, id: LogId) -> bool {
        id.term == self.term && (self.first..=self.last_id().index).contains(&id.index)
    }
}

/// Writes a run of entries, whose block is in parts, into `value`, which has exactly its size.
pub(crate) fn encode_run(group: GroupId, header: RunHeader, block: &[Bytes], value: &mut [u8]) {
    let len: usize = block.iter().map(Bytes::len).sum();
    debug_assert_eq!(value.len(), RUN_HEADER + len, "the value was reserved for this run");
    let mut head = Vec::with_capacity(RUN_HEADER);
    head.extend_from_slice(&[VERSION, if header.has_membership { FLAG_MEMBERSHIP } else { 0 }, 0, 0]);
    head.extend_from_slice(&header.count.to_le_bytes());
    head.extend_from_slice(&header.commit.to_le_bytes());
    head.extend_from_slice(&header.term.0.to_le_bytes());
    head.extend_from_slice(&header.first.0.to_le_bytes());
    head.extend_from_slice(&(len as u64).to_le_bytes());
    let mut sum = checksum(&log_key(group, header.first), &[&head]);
    for part in block {
        sum = crc32c::crc32c_append(sum, part);
    }
    head.extend_from_slice(&sum.to_le_bytes());
    let (front, mut rest) = value.split_at_mut(RUN_HEADER);
    front.copy_from_slice(&head);
    for part in block {
        let (to, after) = rest.split_at_mut(part.len());
        to.copy_from_slice(part);
        rest = after;
    }
}

/// The header of a run, with its block, once the checksum of both is right.
pub(crate) fn check_run(group: GroupId, first: Index, value: &[u8]) -> Result<(RunHeader, &[u8]), Bad> {
    let version = *value.first().ok_or("the record is empty")?;
    if version != VERSION {
        return Err(Bad::Version(version));
    }
    let (head, block) = value.split_at_checked(RUN_HEADER).ok_or("the record is cut short")?;
    let (fields, sum) = head.split_last_chunk::<4>().ok_or("the record is cut short")?;
    if checksum(&log_key(group, first), &[fields, block]) != u32::from_le_bytes(*sum) {
        return Err("the checksum does not match".into());
    }
    let mut rest = Cursor(fields);
    let mut parse = || {
        let ([_, flags, ..], count, commit) = (rest.take::<4>()?, rest.u32()?, rest.u64()?);
        let (term, at, len) = (Term(rest.u64()?), Index(rest.u64()?), rest.u64()?);
        let header =
            RunHeader { commit, term, first: at, count, has_membership: flags & FLAG_MEMBERSHIP != 0 };
        Some((header, len))
    };
    let (header, len) = parse().ok_or("the record is cut short")?;
    if header.first != first || len != block.len() as u64 || header.count == 0 {
        return Err("the header contradicts its place or its length".into());
    }
    Ok((header, block))
}

/// A run, read back whole.
pub(crate) fn decode_run(group: GroupId, first: Index, value: &[u8]) -> Result<Run, Bad> {
    let (header, block) = check_run(group, first, value)?;
    let run = Run::parse(header.term, first, Bytes::copy_from_slice(block))
        .map_err(|error: BlockError| Bad::Damaged(error.to_string()))?;
    if run.count() != u64::from(header.count) {
        return Err("the header contradicts the number of entries".into());
    }
    Ok(run)
}

fn checksum(key: &[u8], parts: &[&[u8]]) -> u32 {
    parts.iter().fold(crc32c::crc32c(key), |sum, part| crc32c::crc32c_append(sum, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::NodeId;

    const GROUP: GroupId = GroupId(3);

    fn every_flip(value: &[u8], whole: impl Fn(&[u8]) -> bool) {
        assert!(whole(value));
        let mut flipped = value.to_vec();
        for bit in 0..value.len() * 8 {
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!whole(&flipped), "bit {bit}");
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..value.len() {
            assert!(!whole(&value[..len]), "cut to {len}");
        }
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_noticed_in_every_record() {
        let state = State {
            commit: 9,
            incarnation: Incarnation(2),
            hard_state: HardState { term: Term(7), vote: Some(NodeId(1)) },
            last: LogId::new(Term(6), Index(12)),
        };
        every_flip(&state.encode(GROUP), |value| {
            State::decode(GROUP, value).is_ok_and(|found| found == state)
        });
        let base = Base { id: LogId::new(Term(1), Index(4)), membership: Membership::of_voters([NodeId(1)]) };
        every_flip(&base.encode(GROUP), |value| Base::decode(GROUP, value).is_ok_and(|found| found == base));
        let removed = Removed { commit: 8, incarnation: Incarnation(3) };
        every_flip(&removed.encode(GROUP), |value| {
            Removed::decode(GROUP, value).is_ok_and(|found| found == removed)
        });
        every_flip(&encode_commit(77), |value| decode_commit(value).is_ok_and(|found| found == 77));
        let run = Run::commands(Term(2), Index(5), &[b"one".as_slice(), b"", b"three"]).unwrap();
        every_flip(&encoded(&run), |value| {
            decode_run(GROUP, Index(5), value).is_ok_and(|found| found == run)
        });
    }

    #[test]
    fn a_record_at_anothers_place_is_noticed() {
        let run = Run::commands(Term(2), Index(5), &[b"x"]).unwrap();
        let value = encoded(&run);
        assert!(decode_run(GROUP, Index(6), &value).is_err());
        assert!(decode_run(GroupId(4), Index(5), &value).is_err());
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut value = encoded(&Run::noop(Term(2), Index(5)));
        value[0] = 2;
        assert!(matches!(check_run(GROUP, Index(5), &value), Err(Bad::Version(2))));
    }

    #[test]
    fn keys_sort_by_group_then_index() {
        assert!(log_key(GroupId(1), Index(u64::MAX)) < log_key(GroupId(2), Index(0)));
        assert!(log_key(GroupId(1), Index(255)) < log_key(GroupId(1), Index(256)));
        assert_eq!(index_of(&log_key(GROUP, Index(1 << 40))), Index(1 << 40));
        assert_eq!(kind_of(&state_key(GROUP)), Kind::State(GROUP));
        assert_eq!(kind_of(&removed_key(GROUP)), Kind::Removed(GROUP));
        assert_eq!([base_key(GROUP), COMMIT_KEY].map(|key| kind_of(&key)), [Kind::Other; 2]);
    }

    fn encoded(run: &Run) -> Vec<u8> {
        let mut value = vec![0; RUN_HEADER + run.bytes()];
        let count = u32::try_from(run.count()).unwrap();
        let header = RunHeader {
            commit: 8,
            term: run.term(),
            first: run.first(),
            count,
            has_membership: run.has_membership(),
        };
        encode_run(GROUP, header, &[run.block().clone()], &mut value);
        value
    }
}
